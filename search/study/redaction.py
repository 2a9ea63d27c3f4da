"""What may be shown: text without passwords, and without control characters that a terminal would obey."""

from __future__ import annotations

import re

from .references import is_reference

_USER_INFO = re.compile(r"(\w[\w+.-]*://[^\s:/@]*:)([^\s'\"]*)(@)")
_QUERY = re.compile(r"([?&](?:password|passwd|pwd|token|api_key|sslpassword)=)([^&\s'\"]+)()", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with the password of every URL in it hidden: `postgresql://me:***@host/db`, `...?password=***`.

    What only refers to a password, `${NAME}`, stays.
    """
    return _QUERY.sub(_hidden, _USER_INFO.sub(_hidden, text))


def _hidden(found: re.Match[str]) -> str:
    return found[0] if is_reference(found[2]) else f"{found[1]}***{found[3]}"


def printable(text: str) -> str:
    """`text` with control characters written out: data and model output may not move a terminal's cursor."""
    return "".join(each if each in "\n\t" or each.isprintable() else repr(each)[1:-1] for each in text)
