"""Verbs for what comes after a search: export, train, evaluate. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import AsJson, StudyFile, console_for, print_json


def _above_zero(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"must be a number above 0, but got {value:g}")
    return value


Winner = Annotated[Path, typer.Argument(help="winner.yaml, or the folder of an export.", metavar="WINNER.yaml")]
Out = Annotated[Path, typer.Option(help="Folder of checkpoints and the finished model; the same one resumes.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of the file's.")]
Epochs = Annotated[
    float | None, typer.Option(callback=_above_zero, help="Passes over the demonstrations, instead of steps.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Data order and new adapters, instead of the file's.")]
Lora = Annotated[int | None, typer.Option(min=0, help="Rank of LoRA adapters; 0 trains all weights.")]
Micro = Annotated[int | None, typer.Option(min=1, help="Sequences of a forward pass, instead of the file's.")]
Every = Annotated[int | None, typer.Option(min=1, help="Steps between evaluations on the search problems.")]
Save = Annotated[int | None, typer.Option(min=1, help="Steps between saved models.")]
Keep = Annotated[int | None, typer.Option(min=1, help="Newest saved models to keep, beside the best.")]
Packing = Annotated[bool | None, typer.Option(help="Pack the sequences of a forward pass into one row.")]
Checkpointing = Annotated[bool | None, typer.Option(help="Recompute activations instead of keeping them.")]
Ranks = Annotated[int, typer.Option(min=1, help="Processes of this host that train together (DDP).")]
Launch = Annotated[Path | None, typer.Option(help="accelerate configuration, e.g. the export's fsdp_8gpu.yaml.")]
Machine = Annotated[int, typer.Option(min=0, help="Number of this host among those of --launch; 0 shows and tracks.")]
Tracking = Annotated[
    str | None, typer.Option(help="MLflow store; `none` for none. Default: MLFLOW_TRACKING_URI, or a file in --out.")
]


def train(
    winner: Winner,
    out: Out = Path("trained"),
    steps: Steps = None,
    epochs: Epochs = None,
    seed: Seed = None,
    lora: Lora = None,
    micro_batch: Micro = None,
    evaluate_every: Every = None,
    save_every: Save = None,
    keep: Keep = None,
    packing: Packing = None,
    activation_checkpointing: Checkpointing = None,
    ranks: Ranks = 1,
    launch: Launch = None,
    machine_rank: Machine = 0,
    tracking: Tracking = None,
    as_json: AsJson = False,
) -> None:
    """Train an exported target in full: resumable, evaluated on the way, saved as safetensors."""
    from ..commands.train import train_winner

    length: dict[str, Any] = {} if steps is None and epochs is None else {"steps": steps, "epochs": epochs}
    rest = {
        "evaluate_every": evaluate_every,
        "save_every": save_every,
        "keep": keep,
        "packing": packing,
        "activation_checkpointing": activation_checkpointing,
    }
    changes: dict[str, Any] = {"run": length | _given(rest)}
    changes |= _given({"seed": seed})
    training: dict[str, Any] = _given({"micro_batch": micro_batch})
    if lora is not None:
        training["lora"] = {"rank": lora} if lora else None
    found = train_winner(
        winner, out, console_for(as_json), changes=changes, training=training, ranks=ranks, launch=launch,
        machine_rank=machine_rank, tracking=tracking,
    )  # fmt: skip
    if as_json:
        print_json(found)
    if found["status"] != "finished":
        raise SystemExit(130)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def export(
    study: StudyFile,
    directory: Annotated[Path, typer.Argument(help="New folder to write.", metavar="DIR")],
    unconfirmed: Annotated[bool, typer.Option("--unconfirmed", help="Also without a confirmed winner.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(help="Repository of the Hugging Face hub to upload it to.", metavar="OWNER/NAME")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make that repository a private one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the confirmed winner: winner.yaml, its loss for any trainer, what TRL and axolotl need, a model card."""
    from ..export.write import export_winner, show_export

    console = console_for(as_json)
    found = export_winner(study, directory, console, unconfirmed=unconfirmed)
    if push_to_hub is not None:
        from ..export.hub import push

        found["hub"] = push(directory, push_to_hub, private=private)
        console.print(f"Uploaded to {found['hub']['url']}", soft_wrap=True, markup=False)
    print_json(found) if as_json else show_export(found, console)


def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder, hub id or GGUF file.", metavar="MODEL")],
    tasks: Annotated[Path, typer.Argument(help="YAML with an `evaluation` section.", metavar="TASKS.yaml")],
    out: Annotated[Path | None, typer.Option(help="Folder for items and result; a second call goes on there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on tasks."""
    from ..commands.evaluate import evaluate_model

    result = evaluate_model(model, tasks, out, console_for(as_json))
    if as_json:
        print_json(result)
