r"""One typography for answers: what two texts may differ in without saying anything else.

`fold` is for any text: full-width letters, styled letters and the digits of all scripts become ASCII. `typeset` is for
a mathematical answer: symbols become LaTeX commands, superscripts become exponents, spacing, size and font commands go,
`\text{12 hours}` becomes `12 hours`. Nothing here knows what an answer means, and LaTeX is parsed by math-verify alone.
"""

import re
import unicodedata

_STYLED = re.compile("[\uff01-\uff5e\u3000\u2460-\u24ff\U0001d400-\U0001d7ff]")
_SPECIAL = re.compile(
    r"<<[^<>\n=]{1,120}=[^<>\n]{1,80}>>|<\|[^|<>\s]{1,40}\|>|</?s>|<(?:eos|bos|pad|end_of_turn|start_of_turn)>"
)
"""A calculator's notes in worked solutions among them."""
_EMPHASIS = (
    re.compile(r"(?<![0-9A-Za-z*\\])\*\*\*(?=[^\s*])([^\n]{1,500}?)(?<=[^\s*])\*\*\*(?![0-9*])"),
    re.compile(r"(?<![0-9A-Za-z*\\])\*\*(?=[^\s*])([^\n]{1,500}?)(?<=[^\s*])\*\*(?![0-9*])"),
    re.compile(r"(?<![\w\\])__(?=[^\s_])([^\n]{1,500}?)(?<=[^\s_])__(?!\w)"),
    re.compile(r"(?<![\w*\\])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])"),
    re.compile(r"(?<![\w\\)}])_(?=[^\s_{])([^_\n]+?)(?<=[^\s_])_(?!\w)"),
    re.compile(r"(?<!`)`{1,3}([^`\n]{1,500})`{1,3}(?!`)"),
    re.compile(r"^```\w*\n([^`\n]{1,500})\n```[ \t]*$", re.M),
    re.compile(r"<<([^<>\n=]{1,200})>>"),
    re.compile(r"<(?:b|i|u|em|strong|code|mark|p|span|div|big|font)\b[^<>\n]{0,100}>([^<>\n]{1,500})</\w{1,6}>", re.I),
)


_CHEERS = re.compile("[\u2600-\u2712\u2714\u2728-\u274b\u2764\U0001f300-\U0001faff\ufe0f]")
"""Pictures that say nothing; a cross rejects."""


def fold(text: str) -> str:
    """Full-width and styled characters and the decimal digits of every script as ASCII, without emoji."""
    if text.isascii():
        return text
    text = _CHEERS.sub("", text)
    text = _STYLED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return "".join(str(unicodedata.decimal(char)) if char > "\x7f" and char.isdecimal() else char for char in text)


def without_special_tokens(text: str) -> str:
    """Without the tokens of a chat template that a decoder left in the text."""
    return _SPECIAL.sub("", text) if "<" in text else text


def without_emphasis(text: str) -> str:
    """Without markdown's emphasis, code ticks included; the words stay."""
    for pattern in _EMPHASIS:
        text = pattern.sub(r"\1", text)
    return text


# --- mathematics -----------------------------------------------------------------------------------------------------

_SYMBOLS = {
    "\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\ufe63": "-",
    "×": r"\times ", "✕": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ", "∗": "*",
    "÷": "/", "∕": "/", "\u2044": "/", "≤": r"\le ", "⩽": r"\le ", "≦": r"\le ", "≥": r"\ge ", "⩾": r"\ge ",
    "≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≃": r"\approx ", "≅": r"\cong ", "≡": r"\equiv ", "±": r"\pm ",
    "∓": r"\mp ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ",
    "⊂": r"\subset ", "⊆": r"\subseteq ", "∖": r"\setminus ", "∠": r"\angle ", "△": r"\triangle ", "°": r"^\circ ",
    "º": r"^\circ ", "℃": r"^\circ C", "℉": r"^\circ F", "→": r"\to ", "⇒": r"\Rightarrow ", "…": r"\dots ",
    "∴": "",
    "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": r"\mid ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "\u2018": "'", "\u2019": "'", "\u2032": "'", "\u201c": '"', "\u201d": '"', "\u2033": '"', "、": ",", "µ": "u",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2007": " ", "\u200b": "", "\ufeff": "", "\u2061": "",
}  # fmt: skip
_TRANSLATED = str.maketrans(_SYMBOLS)
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True))
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_VULGAR = re.compile("(\\d?)\\s*([¼-¾⅐-⅞])")
_ROOT = re.compile(r"([√∛])\s*(\([^()]*\)|\{[^{}]*\}|[\d.]+|\\?[A-Za-zα-ω])")
_GREEK = re.compile("[α-ωϑϕϵΑ-Ω]")


def _vulgar(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[2]).partition("\u2044")
    return rf"{match[1]}\frac{{{numerator}}}{{{denominator}}}"


def _root(match: re.Match[str]) -> str:
    inner = match[2][1:-1] if match[2][0] in "({" else match[2]
    return rf"\sqrt{{{inner}}}" if match[1] == "√" else rf"\sqrt[3]{{{inner}}}"


def _greek(match: re.Match[str]) -> str:
    *_, name = unicodedata.name(match[0]).replace(" SYMBOL", "").split()
    name = name.lower().replace("lamda", "lambda")
    return f"\\{name if match[0].islower() else name.capitalize()} "


def _as_latex(text: str) -> str:
    if text.isascii():
        return text
    text = _VULGAR.sub(_vulgar, text)
    text = _RAISED.sub(lambda match: f"^{{{''.join(_SUPERSCRIPTS[char] for char in match[0])}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{''.join(_SUBSCRIPTS[char] for char in match[0])}}}", text)
    text = _GREEK.sub(_greek, _ROOT.sub(_root, text))
    return text.translate(_TRANSLATED)


_GROUPED = re.compile(
    r"(?<![\d.])(\d{1,3})((?:(?:\\[,;: ]|\{,\}\\?!?|,\\!|\\,\\!|[\u2009\u202f\u00a0'’])\d{3})+)(?!\d)"
)
_SPACED = re.compile(
    r"(?<![\w.,/}])(?<![\w)}]-)(\d{1,3})((?: \d{3})+(?!\d|\s*/|[ ,]\d)|(?:\.\d{3}){2,}(?!\d|\s*/|[ ,.]\d))"
)
_SPACING = re.compile(
    r"(?<!\\)\\(?:[,;:> \n]|quad\b|qquad\b|enspace\b|thinspace\b|[hv]space\*?\{[^{}]*\}|h?phantom\{[^{}]*\}|hfill\b)"
    r"|(?<!\\)~"
)
_VANISHING = re.compile(
    r"(?<!\\)\\(?:!|left(?![a-z])\.?|right(?![a-z])\.?|[bB]ig{1,2}[lrm]?(?![a-z])|(?:display|text|script)style\b|(?:tiny|small|normalsize|[lL]arge|LARGE|[hH]uge)\b|n?o?limits\b"
    r"|therefore\b|boldmath\b|color\{[^{}]*\}|it\b|bf\b|rm\b)"
)
_SYNONYMS = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:leqslant|leqq|leq|le)(?![a-zA-Z])|<=|=<"), r"\\le "),
    (re.compile(r"\\(?:geqslant|geqq|geq|ge)(?![a-zA-Z])|>="), r"\\ge "),
    (re.compile(r"\\neq?(?![a-zA-Z])|(?<!\d)!=|\\not\s*="), r"\\ne "),
    (re.compile(r"(?<=\d)!=(?!=)"), "! ="),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\(?:varnothing|O)(?![a-zA-Z])|\\\{\s*\\\}"), r"\\emptyset "),
    (re.compile(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\(?:degree|textdegree)(?![a-zA-Z])"), r"^\\circ "),
    (
        re.compile(
            r"(\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])\s*(?:\^\s*\{?\d\}?)?\s*)[({]?\s*(\d+(?:\.\d+)?)\s*\^\\circ\s*[)}]?"
        ),
        r"\1(\\frac{\2\\pi}{180})",
    ),
    (re.compile(r"\\(?:mid|vert|lvert|rvert)(?![a-zA-Z])"), "|"),
    (re.compile(r"\\cdots|\\ldots|\.\.\."), r"\\dots "),
    (re.compile(r"\\ast(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\{,\}|,\\!"), ","),
    (re.compile(r"\\(?:sim|simeq|thickapprox)(?![a-zA-Z])"), r"\\approx "),
    (re.compile(r"\\colon(?![a-zA-Z])"), ":"),
    (re.compile(r"\\[dt]?binom\s*(\w)\s*(\w)"), r"\\binom{\1}{\2}"),
    (re.compile(r"\\log\s*_\s*\{?\s*e\s*\}?(?![a-zA-Z])"), r"\\ln "),
    (re.compile(r"(?<=\})\s*(?:-|\\backslash)\s*(?=\\\{)"), r"\\setminus "),
    (re.compile(r"\\operatorname\*?\s*\{\s*(gcd|lcm|min|max|log|ln|exp|det|arg|deg|dim)\s*\}"), r"\\\1 "),
)
_DOTTED = re.compile(r"(?<!\d)(\d{0,30}\.\d{0,30})\\dot\s*\{?\s*(\d)\s*\}?(?:(\d{0,30})\\dot\s*\{?\s*(\d)\s*\}?)?")
_RECURRING = re.compile(r"(?<!\d)(\d{0,30}\.\d{0,30}?)(?:(\d)\2{2,}|(\d{2,12}?)\3+)\s*\\dots(?![A-Za-z])")
_MAPPED = re.compile(r"(?:[A-Za-z]\s*:\s*)?[a-z]\s*\\mapsto\s*(?=\S)")
_SPOKEN = (
    (
        re.compile(r"(?:there\s+(?:is|are)\s+)?no\s+(?:real\s+|such\s+)?(?:solutions?|roots?)(?:\s+exists?)?", re.I),
        r"\emptyset",
    ),
    (re.compile(r"(?:it\s+|the\s+limit\s+)?(?:dne|does\s*(?:not|n['’]t)\s+exist)", re.I), r"\text{does not exist}"),
)
"""Words, the whole of an answer, and what they are written as."""
_ARGUMENT = r"(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|\\(?!sqrt|frac|text)[A-Za-z]+|[A-Za-z0-9])"
_FRACTION = re.compile(rf"\\frac\s*{_ARGUMENT}\s*{_ARGUMENT}")
_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|sc|up|md|normal)?|mbox|hbox|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|emph|underline"
    r"|operatorname\*?|textcolor\{[^{}]*\}|boxed|fbox|framebox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)


def _unwrapped(match: re.Match[str]) -> str:
    inner = match[1].strip()
    words = inner.replace("$", "")
    is_text = len(re.findall(r"[^\W\d_]", words)) > 1 and not re.search(r"[\d\\=^]", words)
    spaced = f" {inner} " if match[1] != inner else inner
    return rf"\text{{{' '.join(words.split())}}}" if is_text else f" {spaced}" if words[:1].isalpha() else spaced


def _fraction(match: re.Match[str]) -> str:
    parts = [part[1:-1] if part.startswith("{") else part for part in match.groups()]
    inner = [_FRACTION.sub(_fraction, part) for part in parts]
    return rf"\frac{{{inner[0]}}}{{{inner[1]}}}"


_UNIT_FRACTION = re.compile(
    r"\\[dt]?frac\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}"
)


def typeset(text: str) -> str:
    """A mathematical answer in one typography; equal texts afterwards say the same."""
    text = _as_latex(fold(without_special_tokens(text))).rstrip("\\ \n")
    text = _UNIT_FRACTION.sub(r"\\text{\1/\2}", text)
    text = without_emphasis(text)
    if "\\begin" not in text:
        text = re.sub(r"\\\\(?=[A-Za-z{}%$])", r"\\", text)  # a command escaped twice, as in JSON
        text = text.replace("\\\\", " ")
    text = _GROUPED.sub(lambda match: match[1] + re.sub(r"\D", "", match[2]), text)
    text = _SPACED.sub(lambda match: match[1] + re.sub(r"\D", "", match[2]), text)
    text = _undelimited(text)
    for _ in range(3):  # wrappers in wrappers
        text = _WRAPPED.sub(_unwrapped, text)
    text = _VANISHING.sub("", _SPACING.sub(" ", text))
    for pattern, replacement in _SYNONYMS:
        text = pattern.sub(replacement, text)
    text = re.sub(r"^\s*(?:=|\\(?:Rightarrow|implies|to|approx)(?![A-Za-z]))\s*", "", text.replace("{}", ""))
    text = _DOTTED.sub(lambda m: rf"{m[1]}\overline{{{''.join(filter(None, m.groups()[1:]))}}}", text)
    text = _RECURRING.sub(lambda m: rf"{m[1]}\overline{{{m[2] or m[3]}}}", text)
    return _spoken(" ".join(_FRACTION.sub(_fraction, _MAPPED.sub("", text, count=1)).split()))


def _spoken(text: str) -> str:
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip(" .!")
    return next((written for pattern, written in _SPOKEN if pattern.fullmatch(plain)), text)


FORMULA = re.compile(
    r"\$\$([^$]{1,2000})\$\$|(?<![\\$])\$(?=[^\s$])((?:[^$\n\\]|\\.){0,2000}?)(?<=[^\s\\])\$(?!\d)"
    r"|\\\(((?:[^\\]|\\[^)]){1,2000}?)\\\)|\\\[((?:[^\\]|\\[^\]]){1,2000}?)\\\]"
)
"""A formula between its delimiters; the dollars of "$5 and $6" are none."""


def formula_in(match: re.Match[str]) -> str:
    """What stands between a formula's delimiters."""
    return next((group for group in match.groups() if group), "").strip()


def _undelimited(text: str) -> str:
    """Without the delimiters of formulas; a dollar that is money is written `\\$`."""
    text = FORMULA.sub(lambda match: f" {formula_in(match)} ", text)
    text = re.sub(r"(?<!\\)\$(?=\s*[-+]?[\d.])", r"\\$", text)
    text = re.sub(r"(?<!\\)\$", " ", text)
    return re.sub(r"\\[()\[\]](?![A-Za-z])", " ", text) if "\\begin" not in text else text
