"""Stored answers judged by several rules: where they disagree, and how often each agrees with a reader.

    python benchmarks/verdicts.py ITEMS.jsonl... [--review FILE --count 100] [--read FILE] [--seed 0]

ITEMS.jsonl: what an evaluation stores. The rules: `verify` as the task asks for it, its kind `math` for every answer,
the last number or option letter anywhere in the completion (as lenient harnesses read), math-verify on the whole
completion, and whether the gold stands anywhere. --review writes answers to be read, those first on which the rules
disagree, without any verdict. --read takes that file with `right` (true or false) filled in for each line, and prints
for every rule how many it judges as the reader does, wrong answers it counts right, and right ones it counts wrong.
"""

import argparse
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from qtarget.evaluation.reading.numeric import NUMBER, read_number, same_number
from qtarget.evaluation.settings import Kind
from qtarget.evaluation.verification.verify import Claim, judge_all

Row = dict[str, Any]
Rule = Callable[[Sequence[Row]], list[bool]]
SHOWN = ("task", "prompt", "completion", "gold", "kind", "finish", "sample", "problem")


def claims(rows: Sequence[Row], kind: Kind | None = None) -> list[bool]:
    """What `verify` says, as the rows' own kind or another."""
    asked = [
        Claim(row["completion"], row["gold"], kind or cast(Kind, row["kind"]), truncated=row["finish"] == "length")
        for row in rows
    ]
    return [judgement.verdict == "correct" for judgement in judge_all(asked)]


def last_of_its_kind(rows: Sequence[Row]) -> list[bool]:
    """The last number or letter anywhere."""
    return [_last(row) for row in rows]


def _last(row: Row) -> bool:
    if row["kind"] == "choice":
        letters = re.findall(r"\b[A-J]\b", row["completion"])
        return bool(letters) and letters[-1] == row["gold"]
    pattern = re.compile(rf"{NUMBER.pattern}(?:/\d+)?")
    found = [match[0] for match in pattern.finditer(row["completion"])]
    numbers = read_number(row["gold"]), read_number(found[-1]) if found else None
    return numbers[0] is not None and numbers[1] is not None and same_number(numbers[0], numbers[1])


def math_verify_alone(rows: Sequence[Row]) -> list[bool]:
    """math-verify's own extraction and comparison."""
    from math_verify import parse, verify

    return [bool(verify(parse(f"${row['gold']}$"), parse(row["completion"]))) for row in rows]


def anywhere(rows: Sequence[Row]) -> list[bool]:
    """Whether the gold stands anywhere in the completion."""
    return [re.search(rf"(?<!\w){re.escape(row['gold'])}(?!\w)", row["completion"]) is not None for row in rows]


RULES: dict[str, Rule] = {
    "verify": claims,
    "verify, kind math": lambda rows: claims(rows, "math"),
    "last number or letter": last_of_its_kind,
    "math-verify alone": math_verify_alone,
    "gold anywhere": anywhere,
}


def to_read(rows: Sequence[Row], verdicts: dict[str, list[bool]], count: int, seed: int) -> list[Row]:
    """`count` rows, those first on which the rules disagree, each kind of disagreement in turn."""
    kinds: dict[tuple[bool, ...], list[Row]] = {}
    for index in random.Random(seed).sample(range(len(rows)), len(rows)):
        kinds.setdefault(tuple(each[index] for each in verdicts.values()), []).append(rows[index])
    disputed = [group for verdict, group in kinds.items() if len(set(verdict)) > 1]
    agreed = [group for verdict, group in kinds.items() if len(set(verdict)) == 1]
    chosen: list[Row] = []
    for groups in (disputed, agreed):
        while len(chosen) < count and any(groups):
            chosen += [group.pop() for group in groups if group]
    return [{name: row[name] for name in SHOWN} | {"right": None} for row in chosen[:count]]


def table(rows: Sequence[Row]) -> str:
    """Agreement of every rule with the reader's `right`."""
    right = [bool(row["right"]) for row in rows]
    lines = [
        f"{len(rows)} answers read, {sum(right)} right",
        "",
        "| rule | as the reader | wrong counted right | right counted wrong |",
        "|---|--:|--:|--:|",
    ]
    for name, rule in RULES.items():
        pairs = list(zip(rule(rows), right, strict=True))
        agreed, over, under = (
            sum(pair in which for pair in pairs)
            for which in ([(True, True), (False, False)], [(True, False)], [(False, True)])
        )
        lines.append(f"| {name} | {agreed} | {over} | {under} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", type=Path, nargs="*")
    parser.add_argument("--review", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = [json.loads(line) for path in arguments.items for line in path.read_text("utf-8").splitlines()]
    if rows:
        verdicts = {name: rule(rows) for name, rule in RULES.items()}
        for name, found in verdicts.items():
            disputed = sum(one != other for one, other in zip(found, verdicts["verify"], strict=True))
            print(f"{name}: {sum(found)} of {len(rows)} right, {disputed} otherwise than verify")
        if arguments.review:
            chosen = to_read(rows, verdicts, arguments.count, arguments.seed)
            arguments.review.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen), "utf-8")
    if arguments.read:
        print(table([json.loads(line) for line in arguments.read.read_text("utf-8").splitlines()]))


if __name__ == "__main__":
    main()
