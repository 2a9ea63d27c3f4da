"""Write demonstrations and problems of a reasoning-gym task as JSONL, disjoint by content.

    python studies/make_gym_task.py TASK FOLDER [--config JSON] [--demonstrations N] [--problems N] [--max-characters N]
        [--max-lines N] [--seed N]

FOLDER/demonstrations.jsonl has the columns prompt and completion: the worked solution where the task carries one
(gsm_symbolic: the working, then `#### answer`), else `#### answer` alone. FOLDER/problems.jsonl: question and answer,
and what the task says of the problem (chain_sum: num_terms, num_digits), by which a report slices.
Which side a question belongs to is decided by the hash of its text, so another seed or size never moves it across; a
worked solution that does not end in the item's own answer is left out. Needs the `gym` extra.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qtarget.evaluation import Verdict, verify
from qtarget.evaluation.problems.gym_tasks import stream
from qtarget.evaluation.problems.splits import content_hash, is_for_training
from qtarget.evaluation.settings import TaskSettings
from qtarget.evaluation.verification.gym import GymItem


def draw(
    task: TaskSettings, demonstrations: int, problems: int, max_characters: int, max_lines: int, seed: int
) -> tuple[list[GymItem], list[GymItem], int]:
    """Items for training, items for problems, and how many were left out for a wrong or long solution."""
    training: list[GymItem] = []
    held_out: list[GymItem] = []
    left_out = 0
    for item in stream(task, seed):
        if completion(item).count("\n") >= max_lines:
            continue
        if not is_for_training(content_hash(item.question)):
            held_out.append(item)
        elif is_usable(item, max_characters):
            training.append(item)
        else:
            left_out += 1
        if len(training) >= demonstrations and len(held_out) >= problems:
            break
    return training[:demonstrations], held_out[:problems], left_out


def completion(item: GymItem) -> str:
    """The item's worked solution, or its answer where the task has none."""
    return item.solution or f"#### {item.gold}"


def is_usable(item: GymItem, max_characters: int) -> bool:
    """Whether question and completion are short enough, and the completion ends in the item's answer."""
    short = len(item.question) + len(completion(item)) <= max_characters
    return short and verify(completion(item), item.gold, item.kind) is Verdict.CORRECT


def problem(item: GymItem) -> dict[str, Any]:
    """A row of problems.jsonl; of the facts, those that all items of a task share in form."""
    facts = {name: value for name, value in item.facts.items() if "." not in name}
    return {**facts, "question": item.question, "answer": item.gold}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="e.g. gsm_symbolic, chain_sum")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=json.loads, default={}, help="options of the task, as JSON")
    parser.add_argument("--demonstrations", type=int, default=4000)
    parser.add_argument("--problems", type=int, default=2000, help="search and report problems together")
    parser.add_argument("--max-characters", type=int, default=2000, help="question and solution together")
    parser.add_argument("--max-lines", type=int, default=100, help="of a solution, on both sides: few are easy")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    training, held_out, left_out = draw(
        TaskSettings(source="gym", path=arguments.task, config=arguments.config),
        arguments.demonstrations,
        arguments.problems,
        arguments.max_characters,
        arguments.max_lines,
        arguments.seed,
    )
    arguments.folder.mkdir(parents=True, exist_ok=True)
    write(
        arguments.folder / "demonstrations.jsonl",
        ({"prompt": item.question, "completion": completion(item)} for item in training),
    )
    write(arguments.folder / "problems.jsonl", map(problem, held_out))
    print(f"{len(training)} demonstrations, {len(held_out)} problems; {left_out} wrong or long solutions left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
