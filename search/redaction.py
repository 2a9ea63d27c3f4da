"""Hiding passwords in whatever people or programs may read: messages, logs, reports, tracking."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"(\w[\w+.-]*://[^\s:/@]*):[^\s'\"]*@")
_QUERY = re.compile(r"([?&](?:password|passwd|pwd|token|api_key|sslpassword)=)[^&\s'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with the password of every URL in it hidden: `postgresql://me:***@host/db`, `...?password=***`."""
    return _QUERY.sub(r"\1***", _USER_INFO.sub(r"\1:***@", text))
