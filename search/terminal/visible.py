"""Text of other people made visible: nothing in it steers a terminal, and what has no shape of its own is seen."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    """`text` with what has no shape of its own made visible: ANSI codes, other controls, marks that turn text round."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    code, kind = ord(character), unicodedata.category(character)
    if character in "\n\t" or kind not in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return character
    if code < 0x20:
        return chr(0x2400 + code)  # control pictures: ESC is ␛
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"
