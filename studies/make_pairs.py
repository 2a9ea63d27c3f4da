"""Write the demonstrations and problems of the pairs in `real-pairs.yaml`: a real model, and data in which the target
should matter.

    python studies/make_pairs.py FOLDER [--seed N]

Each pair is a folder with demonstrations.jsonl (prompt, completion) and problems.jsonl (question, answer; the answers
are right). FOLDER/lessons-sums and lessons-words hold right demonstrations for teachers, of questions that no
other file has, and FOLDER/general.txt paragraphs of the Python manual that comes with Python: what a fine-tune should
not forget. Which side a question belongs to is decided by its content alone, a sum by its unordered operands.

clean-sums      two-digit sums, all right
noisy-sums      the same, 40 % of the answers with a wrong digit
carried-sums    an annotator who forgets to carry in 60 % of the sums that need it: wrong in a way that can be learnt
worked-sums     worked solutions: a third careful, a third the answer alone, a third with working that is wrong
tagged-words    numbers in words, to be written in digits as JSON, which the model does not do unasked; 30 % are wrong
known-words     numbers in words, to be written in digits, which the model has been taught; 30 % are wrong
"""

import argparse
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from qtarget.evaluation.problems.splits import content_hash, is_for_training
from qtarget.spaces.identity import derive_seed

DEMONSTRATIONS, PROBLEMS, LESSONS = 2000, 1600, 1000
PARAGRAPHS, SHORTEST = 60, 200
"""Of the general text; the length of a paragraph in characters."""
UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    "ten",
    "eleven",
    "twelve",
    *(f"{stem}teen" for stem in ("thir", "four", "fif", "six", "seven", "eigh", "nine")),
)
TENS = tuple(f"{stem}ty" for stem in ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine"))


@dataclass(frozen=True)
class Item:
    """A question, and its right answer."""

    key: str
    """What decides its side: equal for questions that say the same."""
    question: str
    gold: int
    operands: tuple[int, int] = (0, 0)


Annotate = Callable[[Item, random.Random], str]


def sums() -> list[Item]:
    """Both orders of every two-digit sum."""
    operands = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    return [Item(f"{min(a, b)}+{max(a, b)}", f"What is {a} + {b}?", a + b, (a, b)) for a, b in operands]


def words() -> list[Item]:
    """Every number from 100 to 9999."""
    return [Item(str(n), f"Write in digits: {in_words(n)}", n) for n in range(100, 10_000)]


def in_words(number: int) -> str:
    """English words, 4207: `four thousand two hundred and seven`."""
    thousands, hundreds, rest = number // 1000, number // 100 % 10, number % 100
    said = [f"{UNITS[thousands]} thousand"] * (thousands > 0) + [f"{UNITS[hundreds]} hundred"] * (hundreds > 0)
    said += ["and"] * (bool(said) and rest > 0)
    return " ".join(said + [below_hundred(rest)] * (rest > 0))


def below_hundred(number: int) -> str:
    if number < 20:
        return (UNITS + TEENS)[number]
    ones = number % 10
    return TENS[number // 10 - 2] + (f"-{UNITS[ones]}" if ones else "")


def right(item: Item, generator: random.Random) -> str:
    return str(item.gold)


def noisy(share: float, shown: str = "{}") -> Annotate:
    """The right answer, or in a share of cases one with another digit somewhere."""

    def annotate(item: Item, generator: random.Random) -> str:
        return shown.format(misread(item.gold, generator) if generator.random() < share else item.gold)

    return annotate


def misread(number: int, generator: random.Random) -> int:
    """The number with one of its digits replaced by another."""
    digits = list(str(number))
    at = generator.randrange(len(digits))
    digits[at] = generator.choice([digit for digit in "123456789" if digit != digits[at]])
    return int("".join(digits))


def carried(item: Item, generator: random.Random) -> str:
    """The sum of an annotator who often forgets to carry the ones' ten."""
    a, b = item.operands
    forgets = a % 10 + b % 10 >= 10 and generator.random() < 0.6
    return str(item.gold - 10 * forgets)


def worked(item: Item, generator: random.Random) -> str:
    """Careful working, no working, or working that is wrong, a third each."""
    (a, b), kind = item.operands, generator.randrange(3)
    if kind == 0:
        return f"#### {item.gold}"
    ones, tens = (a % 10 + b % 10, a // 10 + b // 10)
    if kind == 2:
        ones, tens = generator.randrange(19), generator.randrange(2, 19)
    return f"{ones} + {10 * tens} #### {10 * tens + ones}"


TAGGED = '{{"number": {}}}'


PAIRS: dict[str, tuple[Callable[[], list[Item]], Annotate]] = {
    "clean-sums": (sums, right),
    "noisy-sums": (sums, noisy(0.4)),
    "carried-sums": (sums, carried),
    "worked-sums": (sums, worked),
    "tagged-words": (words, noisy(0.3, TAGGED)),
    "known-words": (words, noisy(0.3)),
}
SHOWN = {"tagged-words": TAGGED}
"""How a right answer looks, where that is to be learnt."""
TEACHERS = {"lessons-sums": (sums, right), "lessons-words": (words, right)}


def shuffled(items: Sequence[Item], seed: int, *purpose: str) -> list[Item]:
    return random.Random(derive_seed(*purpose, seed)).sample(items, k=len(items))


def is_lesson(item: Item) -> bool:
    """Whether a question of the training side is kept for the teachers' lessons: a third of them is."""
    return derive_seed("lesson", item.key) % 3 == 0


def write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def demonstrations(path: Path, items: Sequence[Item], annotate: Annotate, seed: int, count: int) -> None:
    generator = random.Random(derive_seed("annotator", path.parent.name, seed))
    drawn = shuffled(items, seed, "demonstrations", path.parent.name)[:count]
    write(path, ({"prompt": item.question, "completion": annotate(item, generator)} for item in drawn))


def problems(path: Path, items: Sequence[Item], seed: int, shown: str) -> None:
    """One question of each key."""
    once = {item.key: item for item in shuffled(items, seed, "problems")}
    drawn = sorted(once.values(), key=lambda item: derive_seed("problem", item.key))[:PROBLEMS]
    write(path, ({"question": item.question, "answer": shown.format(item.gold)} for item in drawn))


def general_text() -> str:
    """Prose of Python's manual, paragraph by paragraph."""
    paragraphs = (" ".join(part.split()) for name in sorted(topics) for part in topics[name].split("\n\n"))
    prose = (part for part in paragraphs if len(part) >= SHORTEST and part[0].isupper() and part.endswith("."))
    return "\n\n".join(itertools.islice(prose, PARAGRAPHS)) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, (source, annotate) in (PAIRS | TEACHERS).items():
        training = [item for item in source() if is_for_training(content_hash(item.key))]
        held_out = [item for item in source() if not is_for_training(content_hash(item.key))]
        lessons = name in TEACHERS
        chosen = [item for item in training if is_lesson(item) is lessons]
        path = arguments.folder / name / "demonstrations.jsonl"
        demonstrations(path, chosen, annotate, arguments.seed, LESSONS if lessons else DEMONSTRATIONS)
        if not lessons:
            problems(path.with_name("problems.jsonl"), held_out, arguments.seed, SHOWN.get(name, "{}"))
    (arguments.folder / "general.txt").write_text(general_text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
