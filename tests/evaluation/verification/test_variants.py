"""Generated answers: value x spelling x format x surrounding text. The verdict is what the construction says."""

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qtarget.evaluation import Verdict, verify

BRIEF = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
FEW = settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Value:
    """A gold with other spellings of the same value, and values that are near and yet others."""

    kind: str
    gold: str
    same: tuple[str, ...]
    other: tuple[str, ...]


def integer(n: int) -> Value:
    same = [
        str(n),
        f"{n:,}",
        f"{n}.0",
        f"{n:,}".replace(",", "{,}"),
        f"{2 * n}/2" if n % 2 else f"{n}.",
        f"\\text{{{n}}}",
    ]
    other = [
        str(n + 1),
        str(-n) if n else "1",
        f"{n}.5",
        f"{n}0" if n else "10",
        f"1/{n}" if n not in (0, 1, -1) else "7",
    ]
    return Value("numeric", str(n), tuple(same), tuple(other))


def fraction(top: int, bottom: int) -> Value:
    sign, whole, rest = ("-" if top < 0 else ""), abs(top) // bottom, abs(top) % bottom
    same = [f"\\frac{{{top}}}{{{bottom}}}", f"{top}/{bottom}", f"\\dfrac{{{3 * top}}}{{{3 * bottom}}}"]
    if whole and rest:
        same += [f"{sign}{whole}\\frac{{{rest}}}{{{bottom}}}", f"{sign}{whole} {rest}/{bottom}"]
    other = [
        f"\\frac{{{bottom}}}{{{top}}}" if abs(top) != bottom else "7/3",
        f"{top + 1}/{bottom}",
        f"{top}/{bottom + 1}",
    ]
    return Value("math", same[0], tuple(same), (*other, f"\\frac{{{-top}}}{{{bottom}}}" if top else "1/9"))


def scientific(digits: int, power: int) -> Value:
    mantissa = f"{digits // 10}.{digits % 10}"
    same = [rf"{mantissa} \times 10^{{{power}}}", f"{mantissa}e{power}", rf"{digits}\cdot 10^{{{power - 1}}}"]
    near = f"{(digits + 1) // 10}.{(digits + 1) % 10}"
    other = [rf"{near} \times 10^{{{power}}}", rf"{mantissa} \times 10^{{{power + 1}}}", "0", mantissa]
    return Value("math", f"{mantissa}e{power}", tuple(same), tuple(other))


def surd(factor: int, root: int) -> Value:
    same = [rf"{factor}\sqrt{{{root}}}", rf"\sqrt{{{factor * factor * root}}}", f"{factor}√{root}"]
    other = [
        rf"{factor}\sqrt{{{root + 1}}}",
        rf"{factor + 1}\sqrt{{{root}}}",
        rf"{factor}{root}",
        rf"\pm {factor}\sqrt{{{root}}}",
    ]
    return Value("math", same[0], tuple(same), tuple(other))


def numbers(a: int, b: int) -> Value:
    b = b if a != b else b + 1
    same = [
        f"{a},{b}",
        f"{b}, {a}",
        rf"\{{{b},{a}\}}",
        rf"{a} \text{{ and }} {b}",
        f"x={a}, x={b}",
        rf"x = {b} \text{{ or }} x = {a}",
    ]
    other = [f"({a},{b})", f"[{a},{b}]", f"{a}", f"{a},{b},{b + 7}", f"{a},{b + 1}" if a != b + 1 else f"{a},{b + 2}"]
    return Value("math", f"{a},{b}", tuple(same), tuple(other))


def pair(a: int, b: int) -> Value:
    b = b if a != b else b + 1
    same = [f"({a},{b})", rf"\left({a}, {b}\right)", f"(x,y)=({a},{b})", f"x={a}, y={b}"]
    other = [f"({b},{a})", rf"\{{{a},{b}\}}", f"[{a},{b}]", f"{b},{a}", f"({a},{b},0)", f"x={b}, y={a}"]
    return Value("math", f"({a},{b})", tuple(same), tuple(other))


def interval(a: int, length: int) -> Value:
    b = a + length
    same = [f"[{a},{b})", rf"{a} \le x < {b}", rf"x \in [{a},{b})", f"{b} > x >= {a}"]
    other = [f"({a},{b})", f"[{a},{b}]", rf"{a} < x < {b}", f"{a}", rf"\{{{a},{b}\}}", f"[{a},{b + 1})"]
    return Value("math", f"[{a},{b})", tuple(same), tuple(other))


def line(slope: int, offset: int) -> Value:
    same = [f"y={slope}x+{offset}", f"{slope}x+{offset}", f"y-{slope}x={offset}", f"2y={2 * slope}x+{2 * offset}"]
    other = [f"y={slope}x-{offset}", f"{offset}", f"y={slope + 1}x+{offset}", f"y>{slope}x+{offset}"]
    return Value("math", same[0], tuple(same), tuple(other))


def option(letter: str, other: str) -> Value:
    same = [
        letter,
        f"({letter})",
        f"{letter}. Aspirin",
        f"{letter.lower()}",
        f"[{letter}]",
        f"{letter} - Aspirin",
        f"option {letter}",
    ]
    wrong = [
        other,
        f"({other})",
        f"{letter} or {other}",
        f"{letter}, {other}",
        f"not {letter}",
        f"Vitamin {letter}",
        "Aspirin",
    ]
    return Value("choice", letter, tuple(same), tuple(wrong))


small = st.integers(2, 40)
VALUES = st.one_of(
    st.builds(integer, st.integers(-5000, 5_000_000)),
    st.builds(fraction, st.integers(-60, 60).filter(bool), st.sampled_from([7, 11, 13])),
    st.builds(
        scientific, st.integers(11, 98).filter(lambda n: n % 10), st.integers(-34, 34).filter(lambda n: abs(n) > 3)
    ),
    st.builds(surd, small, st.sampled_from([2, 3, 5, 7])),
    st.builds(numbers, st.integers(-30, 30), st.integers(-30, 30)),
    st.builds(pair, st.integers(-30, 30), st.integers(-30, 30)),
    st.builds(interval, st.integers(-30, 30), small),
    st.builds(line, small, small),
    st.permutations("ABCDEFGHIJ").map(lambda letters: option(letters[0], letters[1])),
)

FORMATS = (
    r"\boxed{{{}}}", r"$\boxed{{{}}}$", r"\[ \boxed{{ {} }} \]", r"\boxed{{\boxed{{{}}}}}", "<answer>{}</answer>",
    r"<answer>\boxed{{{}}}</answer>", "<answer>The answer is {}</answer>", "#### {}", "The answer is {}.",
    "The answer is: {}", "So the final answer is **{}**.", "**Final Answer:** {}", "**Answer**\n\n{}", "Answer: {}",
    "### Answer\n{}", "Therefore, the answer is\n\n{}", "答案：{}", "答案是{}。", "La respuesta es {}.",
    "Die Antwort ist {}.", "La réponse est {}.", "Ответ: {}", "정답: {}", '{{"answer": "{}"}}', "the ANSWER IS {}",
    "The answer is therefore {}.",
)  # fmt: skip
BEFORE = (
    "", "We add 3 and 4 first.\n\n", "<think>Maybe \\boxed{99}? The answer is 98.</think>\n", "x = 12, so 2x = 24.\n",
    "A. Ibuprofen\nB. Aspirin\nC. Codeine\n\n", "First I thought the answer is 17.\n", "#### Step 1\nWe look at $x$.\n",
    "Let's think step by step. There are 5 cases (A) to (E).\n", "Since 4 > 3 or 5 < 6, we go on.\n",
)  # fmt: skip
AFTER = (
    "",
    "\n",
    "\n\nI hope this helps!",
    "\n\nQuestion: What is 2 + 2?\nAnswer: 4",
    "<|im_end|>",
    "\n\n(There were 3 steps.)",
)


@FEW
@given(VALUES, st.data(), st.sampled_from(FORMATS), st.sampled_from(BEFORE), st.sampled_from(AFTER))
def test_the_verdict_is_that_of_the_construction(value, data, form, before, after):
    right = data.draw(st.booleans())
    spelling = data.draw(st.sampled_from(value.same if right else value.other))
    form = form if not form.startswith('{{"') or "\\" not in spelling else "Answer: {}"
    completion = before + form.format(spelling) + after
    verdict = verify(completion, value.gold, value.kind)
    assert (verdict is Verdict.CORRECT) is right, (value.gold, spelling, completion, verdict)


CHANGED = (
    "not {}", "less than {}", "at least {}", "under {}", "over {}", "twice {}", "{} squared", "{} or 7001",
    "{} hundred", "the square root of {}", "{} plus 2", "{} out of 7001", "x > {}", "x \\ne {}", "2x = {}", "x^2 = {}",
    "x + 3 = {}", "{}x", "{}^2", "\\sqrt{{{}}}", "\\pm {}", "{}\\pi", "{} \\text{{ or }} 7001", "{}, 7001",
    "up to {}", "almost {}", "{} if x > 0", "between 0 and {}", "{} and a half", "5 - {}", "{}i",
    "\\log {}", "{} times 10",
)  # fmt: skip
KEPT = (
    "{}", "x = {}", "{} apples", "{} km/h", "{} m^2", "\\${}", "{}\\%", "{} \\text{{ cm}}^2", "exactly {}", "about {}",
    "{} = x", "{} dollars per day", "f(2) = {}", "\\text{{Total}} = {}", "{} more apples than Tom", "{}^\\circ", "{}.0",
    "n = {} \\text{{ units}}", "{} students", "\\mathbf{{{}}}", "(2 \\cdot {}) / 2 = {}",
)  # fmt: skip


@FEW
@given(
    st.integers(3, 3000),
    st.sampled_from([(form, True) for form in KEPT] + [(form, False) for form in CHANGED]),
    st.sampled_from(["numeric", "math"]),
    st.sampled_from([form for form in FORMATS if "json" not in form and not form.startswith('{{"')]),
)
def test_words_and_signs_around_a_number_are_part_of_it(number, around, kind, form):
    text, keeps = around
    completion = form.format(text.replace("{}", str(number), 2).replace("{{", "{").replace("}}", "}"))
    verdict = verify(completion, str(number), kind)
    assert (verdict is Verdict.CORRECT) is keeps, (number, completion, verdict)


UNMARKED = (
    ("So she has {} apples.", True), ("So she has **{}** apples left after 3 days.", True), ("In all: **{}**", True),
    ("Total:\n{}", True), ("Total:\n\n**{}**", True), ("4 + 5 = {}", False), ("So the total is ${}.", True),
    ("She earns ${} in all.", True), ("We get $n = {}$.", True), ("Hence there are {} ways.", True),
    ("It is not {}.", False), ("We know 2x = {}.", False), ("There are {} or 7001.", False), ("So {} + 4", False),
    ("It is less than {}.", False), ("He takes 3 of the {}.", False), ("Let x = {}, then", False), ("Is it {}?", False),
    ("There are {}. But that is wrong.", False), ("{}", True), ("{} apples", True),
    ("The sum is {}. Would you like another one?", True), ("It takes 7001 hours {} minutes.", False),
    ("The point has x = 7001 and y = {}.", False), ("There are {} of them, so the rest is", False),
    ("So 2 * 3 + {} - 6 = {}", True),
)  # fmt: skip


@FEW
@given(
    st.integers(13, 3000), st.sampled_from(UNMARKED), st.sampled_from(["numeric", "math"]), st.sampled_from(BEFORE[:2])
)
def test_without_a_mark_only_what_leaves_no_doubt(number, form, kind, before):
    text, right = form
    verdict = verify(before + text.replace("{}", str(number)), str(number), kind)
    assert (verdict is Verdict.CORRECT) is right, (number, text, verdict)


WITHDRAWN = (
    "\n\nWait, that is wrong.", "\nHmm, that doesn't seem right.", " Oops, I forgot a step.",
    "\nI made a mistake there.", "\n\nActually, no.", " Scratch that.", "\nHold on. That does not add up.",
)  # fmt: skip
SUPPOSED = (
    "If the answer is {}, then 2 = 3.", "Suppose the answer is {}.", "One might think the answer is {}.",
    "Is the answer {}?", "I wonder whether the answer is {}.", "It is tempting to say the answer is {}.",
    "The answer is not {}.", "-\\boxed{{{}}}", "2\\boxed{{{}}}", "\\boxed{{{}}}^2", "x > \\boxed{{{}}}",
    "1 - \\boxed{{{}}}", "\\boxed{{{}}} + 4", "It is not \\boxed{{{}}}.", "\\boxed{{{}}} is wrong.",
    "\\boxed{{{}}}\\sqrt{{2}}", "The answer is {}, which is wrong.",
)  # fmt: skip
MARKED = tuple(form for form in FORMATS if not form.startswith('{{"'))


@BRIEF
@given(VALUES, st.data(), st.sampled_from(MARKED), st.sampled_from(WITHDRAWN), st.booleans())
def test_what_the_text_takes_back_is_no_answer(value, data, form, withdrawn, again):
    spelling = data.draw(st.sampled_from(value.same))
    completion = form.format(spelling) + withdrawn + (f"\n{form.format(spelling)}" if again else "")
    assert (verify(completion, value.gold, value.kind) is Verdict.CORRECT) is again, completion


@BRIEF
@given(st.integers(13, 3000), st.sampled_from(SUPPOSED), st.sampled_from(["numeric", "math"]))
def test_what_is_supposed_or_part_of_more_is_no_answer(number, form, kind):
    assert verify(form.format(number), str(number), kind) is not Verdict.CORRECT
    assert verify(f"{form.format(number)}\n\nThe final answer is {number}.", str(number), kind) is Verdict.CORRECT


@FEW
@given(st.sampled_from("ABCDEFGHIJ"), st.sampled_from("ABCDEFGHIJ"), st.booleans(), st.sampled_from(FORMATS[:-1]))
def test_every_letter_in_both_cases_is_treated_alike(gold, letter, lower, form):
    completion = form.format(letter.lower() if lower else letter)
    assert (verify(completion, gold, "choice") is Verdict.CORRECT) is (letter == gold), completion
    assert (verify(completion, gold.lower(), "choice") is Verdict.CORRECT) is (letter == gold), completion


@FEW
@given(st.text(max_size=80), st.sampled_from(["math", "exact"]))
def test_equal_strings_are_equal(text, kind):
    gold = text.strip()
    verdict = verify(f"<answer>{gold}</answer>", gold, kind)
    assert verdict in (Verdict.CORRECT, Verdict.ERROR, Verdict.NO_ANSWER), (gold, verdict)
