"""An optimiser step on a CPU against what it cannot do without: its matrix products and one fused AdamW pass.

    OMP_NUM_THREADS=1 python benchmarks/step_cpu.py MODEL DATA [--layers N] [--length 512] [--repeats 3] [--json FILE]

MODEL is a folder or hub id, DATA demonstrations (prompt, completion), those longer than `--length` left out. Plain SFT
in bf16, 8 demonstrations in a forward pass. All parts take turns in one process on the same batch; the least CPU
seconds of each count. The products are those of all linear layers over the positions of all sequences, a prefix that
they share counted once, and of the head over the labelled ones, forward and backward, without attention. `apart` is the
step that computes a shared prefix for each sequence. `useful` is the share of the demonstrations' positions in those
computed, over 20 steps; with a shared prefix it may be more than 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loss_cases import write
from torch import Tensor, nn

from qtarget.spaces import presets
from qtarget.trainers.data.batches import BatchOrder, Layout
from qtarget.trainers.data.demonstrations import Demonstrations
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.objective import Objective
from qtarget.trainers.loop.optimizer import Optimizer
from qtarget.trainers.loop.packing import common_prefix, laid_out
from qtarget.trainers.models.head import decoder_of
from qtarget.trainers.models.load import load_model, load_tokenizer, pad_token_id
from qtarget.trainers.models.memory import keep_freed
from qtarget.trainers.settings import DataSettings, ModelSettings, TrainingSettings

BATCH, STEPS = 8, 20
SFT = presets.get("sft")


def least(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of each case, all of them in turns; the first turn does not count."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats + 1):
        for name, case in cases.items():
            started = time.process_time()
            case()
            found[name].append(time.process_time() - started)
    return {name: min(seconds[1:]) for name, seconds in found.items()}


def products(model: Any, tokens: int, labels: int) -> Callable[[], object]:
    """The three products of each linear layer and of the head, into fresh memory as in training."""
    layers = [(each.weight.detach(), tokens) for each in decoder_of(model).modules() if isinstance(each, nn.Linear)]
    layers.append((model.get_output_embeddings().weight.detach(), labels))
    rows = {size: torch.randn(tokens, size, dtype=layers[0][0].dtype) for weight, _ in layers for size in weight.shape}

    def run() -> None:
        for weight, count in layers:
            inputs, outputs = rows[weight.shape[1]][:count], rows[weight.shape[0]][:count]
            torch.mm(inputs, weight.T)
            torch.mm(outputs, weight)
            torch.mm(outputs.T, inputs)

    return run


def adamw(model: nn.Module) -> Callable[[], object]:
    """torch's fused AdamW on float32 copies of all weights, gradients at hand."""
    copies = [parameter.detach().float().requires_grad_() for parameter in model.parameters()]
    for each in copies:
        each.grad = torch.zeros_like(each)
    return torch.optim.AdamW(copies, lr=1e-6, fused=True).step


def step(model: nn.Module, data: Demonstrations, pad: int, layout: Layout | None) -> Iterator[tuple[str, Any]]:
    """Its parts: what each does to the same batch."""
    batch = BatchOrder(data, BATCH, 0, pad, layout).at(0)
    objective, optimizer = Objective(model), Optimizer(model, TrainingSettings(precision="bf16"))
    kept: list[Tensor] = []

    def forward() -> None:
        part = next(batch.micro_batches(BATCH))
        kept[:] = [objective.loss(part, SFT).loss_sum / batch.num_tokens]

    def update() -> None:
        optimizer.collect()
        optimizer.clip()
        optimizer.step(1e-6)

    yield "forward", forward
    yield "backward", lambda: torch.autograd.backward(kept.pop())
    yield "update", update


def useful(data: Demonstrations, pad: int, layout: Layout | None) -> float:
    batches = [BatchOrder(data, BATCH, 0, pad, layout).at(number) for number in range(STEPS)]
    computed = sum(part.inputs.numel() for batch in batches for part in batch.micro_batches(BATCH))
    return sum(example.length for batch in batches for example in batch.examples) / computed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--layers", type=int, help="only the first of the decoder, for a quick look")
    parser.add_argument("--length", type=int, default=512, help="tokens of a demonstration at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    base = Path()
    keep_freed()
    settings = ModelSettings(path=arguments.model)
    tokenizer = load_tokenizer(settings, base)
    model: Any = load_model(settings, base, "bf16", device=torch.device("cpu"))
    layers = arguments.layers or model.config.num_hidden_layers
    decoder_of(model).layers = decoder_of(model).layers[:layers]
    model.config.num_hidden_layers = layers
    read = DataSettings(path=str(arguments.data.resolve()), max_length=arguments.length)
    data = load_demonstrations(read, tokenizer, base)
    pad = pad_token_id(tokenizer, model.get_input_embeddings().weight.shape[0])
    model.requires_grad_(True).train()
    with laid_out([model], None) as layout:
        batch = BatchOrder(data, BATCH, 0, pad).at(0)
        assert layout is not None, "a model whose sequences cannot be packed has nothing to compare"
        prefix = common_prefix(batch.examples)
        tokens = sum(example.length for example in batch.examples) - prefix * (BATCH - 1)
        parts = dict(step(model, data, pad, layout))
        alone = {f"{name}, apart": case for name, case in step(model, data, pad, partial(layout, share=False))}
        cases = {**parts, **alone, "products": products(model, tokens, batch.num_tokens), "adamw": adamw(model)}
        seconds = least(cases, arguments.repeats)
        whole, apart = (sum(seconds[name] for name in names) for names in (parts, alone))
        found = {
            "model": arguments.model,
            "layers": layers,
            "positions": tokens,
            "shared prefix": prefix,
            "labels": batch.num_tokens,
            "threads": torch.get_num_threads(),
            "cpu_seconds": seconds,
            "step / (products + AdamW) <= 1.35": whole / (seconds["products"] + seconds["adamw"]),
            "apart / shared": apart / whole,
            "useful / computed >= 0.95": useful(data, pad, layout),
            "useful / computed, padded": useful(data, pad, None),
        }
    write(found, arguments.json)


if __name__ == "__main__":
    main()
