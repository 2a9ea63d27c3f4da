"""MODEL_CARD.md of an export: what the target is, what was measured, how to train with it, what is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...spaces.target import TargetSpec
from ..store.history import TrialRecord
from ..study.winner_file import WinnerFile
from ..terminal.tables import score_text
from ..terminal.verdict import points
from .choice import Winner

CARD = """\
# {title}

A training target chosen by qtarget for **{model}** on **{data}**: at every token the model is pushed toward

    Q_t = γ_t · δ(y_t) + (1 − γ_t) · π̃_t        {formula}

## What was measured

{verdict}

{search}

## Train with it

With TRL alone (no qtarget):

    accelerate launch --config_file one_gpu.yaml train_trl.py --out model
    accelerate launch --config_file fsdp_8gpu.yaml train_trl.py --out model --steps 2000
{axolotl}With qtarget (resumes after a kill, evaluates on the way):

    qtarget train winner.yaml --out model
    qtarget train sft.yaml --out model-sft        # plain SFT, to compare with

{needs}

## Numbers

| setting | value |
|---|---|
{rows}

Everything that decides the result (seeds, content hashes of model and data, versions) is in `provenance.json`;
`check.json` says how closely `target_loss.py` reproduces the trial's own loss on a real batch.

## What is not known

The design was {found} for runs of {steps} steps of {batch} sequences, on the tasks of the study. A longer
run, other data or another model is another question: compare with `sft.yaml`.{cache}
"""


AXOLOTL = """
With axolotl alone, by the plugin `target_axolotl.py`, in this folder:

    PYTHONPATH=. axolotl train axolotl.yaml
"""


def model_card(content: WinnerFile, winner: Winner, sft: TrialRecord | None, *, axolotl: bool = True) -> str:
    """The card as Markdown; `axolotl`: whether the export holds files for it."""
    training = content.training
    rows = {
        "learning rate": f"{training.learning_rate:.4g}, {training.decay}, warm-up {training.warmup_fraction:g}",
        "effective batch": f"{training.effective_batch} sequences",
        "steps of a trial": str(training.steps),
        **({} if content.run.steps is None else {"steps of the full training": str(content.run.steps)}),
        "precision": training.precision,
        "adapters": "none" if training.lora is None else f"LoRA, rank {training.lora.rank}",
        "longest demonstration": f"{content.data.max_length} tokens",
    }
    cached = "" if content.cache is None else (
        " The study asked teacher and reference through a top-k cache; `train_trl.py` asks them live, which is the "
        "exact distribution that the cache approximates."
    )  # fmt: skip
    return CARD.format(
        title=winner.title,
        model=content.model.path,
        data=", ".join(content.data.paths),
        formula=content.target.title(),
        verdict=_verdict(winner),
        search=_search(winner, sft),
        axolotl=f"{AXOLOTL}\n" if axolotl else "\n",
        needs=_needs(content.target, content),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        found="chosen and confirmed" if winner.confirmed else "chosen, not confirmed,",
        steps=training.steps,
        batch=training.effective_batch,
        cache=cached,
    )


def _verdict(winner: Winner) -> str:
    found = winner.comparison
    if found is None:
        return "**Not confirmed.** The best score of many trials is partly luck; see `qtarget confirm`."
    first, *others = found["answers"]
    return "\n\n".join([f"**{first}**", *_numbers(found), *others])


def _numbers(found: Mapping[str, Any]) -> Iterator[str]:
    """Of a comparison with plain SFT."""
    if "effect" in found:
        yield (
            f"Against plain SFT: {points(found)} points over {found['seeds']} fresh seeds and {found['problems']} "
            f"problems that no trial had seen (corrected p {found['adjusted_p_value']:.2g}); expect "
            f"{100 * found['shrunken']:+.1f} of a repetition."
        )


def _search(winner: Winner, sft: TrialRecord | None) -> str:
    if winner.record is None:
        return "The search did not score this design; the confirmation trained it."
    against = "" if sft is None else f"; plain SFT {score_text(sft)}"
    return f"On the search problems: {score_text(winner.record)}{against}."


def _needs(target: TargetSpec, content: WinnerFile) -> str:
    parts = []
    if "teacher" in target.needs and content.teacher is not None:
        parts.append(f"the teacher `{content.teacher.path}` beside the model")
    if "reference" in target.needs:
        parts.append("a frozen copy of the start model")
    if target.needs & {"old_logprobs", "previous"}:
        parts.append("an earlier state of the weights (not under FSDP)")
    return f"The target needs {', and '.join(parts)}." if parts else "The target needs no second model."
