r"""Words and units around a value: which leave it as it is, and which are part of it.

A noun or a unit says what is counted ("34 apples", "15 km/h"). A negation, a comparison, an alternative, a condition,
an operation or a scale makes it another statement ("not 5", "under 5", "5 or so", "5 if x > 0", "5 squared", "square
root of 5"). What is in no list here is a noun: nobody can list those.
"""

import re

_DENIED = (
    r"\b(?:not|no|never|neither|nor|none|without|cannot|can't|wrong|incorrect|false|nicht|kein\w*|niemals|n'est|pas|"
    r"jamais|não|nunca|non|niet|geen|inte|ikke|nie|değil|bukan|tidak|không|не|нет|ни)\b|n['’]t\b|[不没沒非未]|ではない|"
    r"じゃない|아니|ليس|नहीं"
)
_OPEN = (
    r"\b(?:or|either|between|maybe|perhaps|possibly|might|could|may|unknown|unclear|undefined|ambiguous|infinite|unless|if|whether|wonder\w*|tempting|otherwise|"
    r"except|excluding|provided|assuming|depend\w*|versus|vs|oder|vielleicht|entre|zwischen|quizás|peut-être|или|"
    r"возможно)\b|或|也许|可能|または|かもしれ"
)
_ANYWHERE = re.compile(f"{_DENIED}|{_OPEN}", re.I)

_COUNTED = (
    r"(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen"
    r"|nineteen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|[mbtr]+illions?|dozens?|half|halves|"
    r"thirds?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|\w+dths|millionen|milliarden|тысяч\w*|"
    r"миллион\w*|миллиард\w*|bn|mn|mio|mrd|grand)\b"
)
_COMPARED = (
    r"(?:more|less|greater|larger|smaller|fewer|higher|lower|bigger|older|younger|longer|shorter|other|rather|better|"
    r"worse|later|earlier|sooner)\s+than"
)
_BEFORE = re.compile(
    rf"(?:\b(?:{_COMPARED}|(?:(?:any|every|some|no)thing|all|any)\s+but|over|under|above|below|beyond|exceed\w*|at\s+(?:least|most)|up\s+to|almost|nearly|within|"
    r"minus|negative|barely|hardly|twice|thrice|double|triple|quadruple|half|times|plus|modulo|mod|per|divided\s+by|multiplied\s+by|"
    r"raised\s+to|(?:least|most|maximum|minimum|multiple|factor|power|square|cube|half|third|quarter|fifth|tenth|inverse"
    r"|reciprocal|negative|opposite|factorial|logarithm|sine|cosine|tangent|percent\w*|roots?|fraction)\s+of|roots?|"
    r"sqrt|cbrt|sinh?|cosh?|tanh?|cot|sec|csc|arc\w+|log|ln|lg|exp|abs|base|step|option|choice|equation|lines?|page|section|"
    r"chapter|figure|table|lemma|theorem|problem|question|mehr\s+als|"
    r"weniger\s+als|mindestens|höchstens|más\s+de|menos\s+de|al\s+menos|plus\s+de|moins\s+de|au\s+moins|mais\s+de|"
    r"больше|меньше|более|менее)|大于|小于|超过|不到|至少|至多|多于|少于)\s*(?:(?:the|an?|of|number|value)\s*|\()?$"
    rf"|(?:^|[\s(-]){_COUNTED}(?:\s+and)?[\s-]*$",
    re.I,
)
_AFTER = re.compile(
    rf"\s*[-,]?\s*(?:{_COUNTED}|(?:squared|cubed|factorial|plus|minus|multiplied|divided|over|under|below|above|mod|"
    rf"modulo|choose|raised|pi|per\s+mil(?:le|l)?|{_COMPARED}|(?:\w+\s+)?(?:is|are|was|were|would\s+be|seems)\s+(?:too|impossible)|(?:and|to|through|until|by)\s+(?:an?|one)|and\s+half|to\s+the|out\s+of|"
    rf"times\s+the)\b|(?:and|to|of|by|in|from|times|out\s+of)\s+(?:the\s+)?{_COUNTED}|以上|以下|多|이상|이하|미만|초과)",
    re.I,
)
_TRAILING = re.compile(r"\bbelow\s+zero\b", re.I)
_APPROXIMATELY = re.compile(
    r"\b(?:about|approximately|approx\.?|roughly|around|circa|ca\.|etwa|ungefähr|environ)\s+", re.I
)


def leaves_value(before: str, after: str) -> bool:
    """Whether the words before and after a value only say what it counts."""
    if is_denied(before) or is_denied(after):
        return False
    return not (_BEFORE.search(_APPROXIMATELY.sub("", before)) or _AFTER.match(after) or _TRAILING.search(after))


def is_denied(text: str) -> bool:
    """Whether words deny or leave open what they name: not, never, or, maybe, if."""
    return _ANYWHERE.search(text) is not None


# --- units -----------------------------------------------------------------------------------------------------------

_NAMES = {
    "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre", "mm": "millimeter millimetre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "kg": "kilogram kilo", "g": "gram gm",
    "mg": "milligram", "lb": "pound", "oz": "ounce", "s": "second sec", "min": "minute", "h": "hour hr", "day": "d",
    "week": "wk", "month": "mo", "year": "yr", "l": "liter litre", "ml": "milliliter millilitre", "gal": "gallon",
    "mph": "mile/h mi/h", "kph": "km/h kmh kmph", "degree": "deg circ", "dollar": "$ usd buck", "cent": "¢",
    "euro": "€ eur", "pound sterling": "£ gbp", "rupee": "₹ inr rs", "yen": "¥ jpy", "n": "newton", "j": "joule",
    "w": "watt", "v": "volt", "k": "kelvin", "hz": "hertz", "pa": "pascal", "mol": "mole", "rad": "radian",
    "ev": "electronvolt", "c": "celsius coulomb", "f": "fahrenheit farad", "omega": "ohm", "a": "ampere amp",
}  # fmt: skip
_UNIT = {word: name for name, words in _NAMES.items() for word in (name, *words.split())}
_UNIT |= {f"{word}s": name for word, name in list(_UNIT.items()) if len(word) > 2}
_POWER = re.compile(r"\b(square|sq\.?|cubic|cu\.?)\s+(\w+)|(\w+)\s+(squared|cubed)\b")


def canonical_unit(text: str) -> str | None:
    """The unit that `text` names, in one spelling; None for a noun that is no unit of measurement."""
    plain = text.replace("\\cdot", " ").lower().replace("\\", "").replace("{", "").replace("}", "").strip(" .^")
    plain = _POWER.sub(lambda m: f"{m[2] or m[3]}^{2 if (m[1] or m[4]).startswith('sq') else 3}", plain)
    plain = re.sub(r"\s+per\s+|\s*/\s*", "/", re.sub(r"\s*\^\s*", "^", plain))
    plain = re.sub(r"\s+([a-z]+)\^-(\d)", lambda m: f"/{m[1]}" + (f"^{m[2]}" if m[2] != "1" else ""), plain)
    parts = re.split(r"([/*\s]|\^-?\d)", plain)
    names = [_UNIT.get(part.strip(), "") if index % 2 == 0 else part for index, part in enumerate(parts)]
    joined = "".join(names)
    known = all(name or not part for name, part in zip(names[::2], parts[::2], strict=True))
    return _UNIT.get(joined, joined) if known and joined.strip() else None


def same_unit(one: str | None, other: str | None) -> bool:
    """Whether two units agree; one may be left out, and of degrees the scale."""
    if one is None or other is None or one == other:
        return True
    return "degree" in (one, other) and one.split()[0] == other.split()[0]
