"""What it is worth that two designs are sampled with the same noise.

    python benchmarks/common_noise.py MODEL OTHER PROBLEMS.jsonl [--temperature 1.0] [--count 64] [--replicates 20]
        [--tokens 32] [--plain]

MODEL and OTHER are two fine-tunes, PROBLEMS a file with `question` and `answer`. The difference of their scores is
measured under many seeds, once with the same seed for both and once with different ones. Its variance over seeds is
what sampling adds to a comparison on given problems; the ratio of the two variances is the factor by which completions
may be fewer for the same precision.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from qtarget.evaluation.problems.load import load_problems
from qtarget.evaluation.scoring.evaluate import evaluate
from qtarget.evaluation.settings import EvaluationSettings, TaskSettings
from qtarget.spaces.identity import derive_seed
from qtarget.trainers.models.load import load_model, load_tokenizer
from qtarget.trainers.settings import ModelSettings


def item_scores(folder: str, settings: EvaluationSettings, seeds: list[int]) -> np.ndarray[Any, Any]:
    """Scores (replicates, problems) of the model in `folder`."""
    source = ModelSettings(path=folder)
    model, tokenizer = load_model(source, Path(), "fp32"), load_tokenizer(source, Path())
    problems = load_problems(settings, Path(), seed=0).search
    return np.array([evaluate(model, tokenizer, problems, settings, seed=seed).item_scores for seed in seeds])


def compare(ours: np.ndarray[Any, Any], same: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> dict[str, float]:
    """Variances of the mean difference over replicates, and how often two answers to one problem fare alike."""
    common, independent = (ours - same).mean(axis=1), (ours - other).mean(axis=1)
    return {
        "score": float(ours.mean()),
        "difference": float(common.mean()),
        "sd_common": float(common.std(ddof=1)),
        "sd_independent": float(independent.std(ddof=1)),
        # Per-problem variances, summed: the same expectation as that of the mean, with far less noise of its own.
        "variance_ratio": float((ours - other).var(axis=0, ddof=1).sum() / (ours - same).var(axis=0, ddof=1).sum()),
        "alike_common": float((ours == same).mean()),
        "alike_independent": float((ours == other).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("other")
    parser.add_argument("problems")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=64, help="problems")
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--plain", action="store_true", help="no chat template")
    arguments = parser.parse_args()

    path = str(Path(arguments.problems).resolve())
    settings = EvaluationSettings(
        tasks=(TaskSettings(path=path, kind="exact", chat=not arguments.plain),),
        problems=arguments.count,
        max_new_tokens=arguments.tokens,
        temperature=arguments.temperature,
    )
    seeds = [derive_seed("common noise", index) for index in range(arguments.replicates)]
    others = [derive_seed("other noise", index) for index in range(arguments.replicates)]
    ours = item_scores(arguments.model, settings, seeds)
    both = item_scores(arguments.other, settings, [*seeds, *others])
    same, other = both[: len(seeds)], both[len(seeds) :]
    print(json.dumps({name: round(value, 4) for name, value in compare(ours, same, other).items()}, indent=2))


if __name__ == "__main__":
    main()
