"""Addresses of databases and servers as people write them: passwords with any character, and how they are shown."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from .secrets import redact

_WELL_FORMED = re.compile(r"[\w+.-]+://[^:/?#\s]*(?::[^@:/?#\s'\"]*)?@[^@/?#\s]+(?:/[^?#@\s]*)?(?:\?[\w.-]+=\S*)?")
_WITH_PASSWORD = re.compile(r"(?P<start>[\w+.-]+://[^:/?#\s]*:)(?P<password>.*)@(?P<rest>[^@]*)", re.DOTALL)
LOCAL = ("localhost", "127.0.0.1", "::1")


def encoded(url: str) -> str:
    """`url` with its password percent-encoded, unless it already is: `me:p@ss/w@host` is `me:p%40ss%2Fw@host`.

    A password ends at the last `@`. One that can be read as it stands is left as it is.
    """
    found = _WITH_PASSWORD.fullmatch(url)
    if found is None or _WELL_FORMED.fullmatch(url):
        return url
    start, password, rest = found["start"], found["password"], found["rest"]
    if re.fullmatch(r"(?:[\w.~!$&()*+,;=-]|%[0-9A-Fa-f]{2})*", password):
        return url
    return f"{start}{quote(password, safe='')}@{rest}"


def shown(url: str) -> str:
    """`url` without its password, whatever characters that has."""
    return redact(encoded(url))


def is_local(url: str) -> bool:
    """Whether a server of this host is meant, which no proxy can reach."""
    try:
        return urlsplit(encoded(url)).hostname in LOCAL
    except ValueError:
        return False
