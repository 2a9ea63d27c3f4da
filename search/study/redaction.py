"""What may be shown: text without passwords, and without control characters that a terminal would obey."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"(\w[\w+.-]*://[^\s:/@]*):[^\s'\"]*@")
_QUERY = re.compile(r"([?&](?:password|passwd|pwd|token|api_key|sslpassword)=)[^&\s'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with the password of every URL in it hidden: `postgresql://me:***@host/db`, `...?password=***`."""
    return _QUERY.sub(r"\1***", _USER_INFO.sub(r"\1:***@", text))


def printable(text: str) -> str:
    """`text` with control characters written out: data and model output may not move a terminal's cursor."""
    return "".join(each if each in "\n\t" or each.isprintable() else repr(each)[1:-1] for each in text)
