"""Secrets: kept out of files, and out of all that is shown.

`${NAME}` and `${file:PATH}` in addresses of stores: secrets that stay outside study files and command lines.

An address is kept, shown and handed on as it is written; what it refers to is looked up where a store is opened.
Passwords in addresses may have any character.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

from ...spaces.errors import UserError
from ...trainers.paths import expanded

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_FILE = "file:"
_SQLITE = "sqlite:///"
_WELL_FORMED = re.compile(r"[\w+.-]+://[^:/?#\s]*(?::[^@:/?#\s'\"]*)?@[^@/?#\s]+(?:/[^?#@\s]*)?(?:\?[\w.-]+=\S*)?")
_WITH_PASSWORD = re.compile(r"(?P<start>[\w+.-]+://[^:/?#\s]*:)(?P<password>.*)@(?P<rest>[^@]*)", re.DOTALL)
LOCAL = ("localhost", "127.0.0.1", "::1")


def filled(address: str, field: str) -> str:
    """`address` with what it refers to, ready to be opened: never to be shown or stored.

    A value is quoted where it stands for a user, a password or an option, so that it may hold any character. Paths of
    SQLite files may have `~` and `$NAME`, too.

    Raises UserError, naming `field`, for a variable or a file that is not there.
    """
    if address.startswith(_SQLITE):
        return _SQLITE + expanded(address.removeprefix(_SQLITE), field)

    def value(found: re.Match[str]) -> str:
        secret = _looked_up(found[1], field)
        inside = found.start() < address.rfind("@") or "?" in address[: found.start()]
        return quote(secret, safe="") if inside else secret

    return _REFERENCE.sub(value, address)


def with_password_file(address: str, file: Path) -> str:
    """`address` with a reference to the file that holds its password.

    Raises UserError when the address names no user, or has a password already.
    """
    head, at, tail = address.rpartition("@")
    scheme, _, user = head.partition("://")
    if not at or not user or ":" in user:
        raise UserError(
            "`--password-file` needs an address with a user and without a password, as postgresql://user@host/database"
        )
    return f"{scheme}://{user}:${{{_FILE}{file.absolute()}}}@{tail}"


def is_reference(text: str) -> bool:
    """Whether `text` only says where a secret is."""
    return _REFERENCE.fullmatch(text) is not None


def _looked_up(name: str, field: str) -> str:
    if name.startswith(_FILE):
        return _first_line(Path(expanded(name.removeprefix(_FILE), field)), field)
    if not re.fullmatch(r"\w+", name):
        raise UserError(f"`{field}` may refer to ${{NAME}} or ${{file:PATH}}, but has ${{{name}}}", field=field)
    if not os.environ.get(name):
        raise UserError(
            f"`{field}` refers to ${{{name}}}, but {name} is not set here; export it, or name a file that holds the "
            f"secret, ${{file:PATH}}",
            field=field,
        )
    return os.environ[name]


def _first_line(path: Path, field: str) -> str:
    try:
        found = path.read_text("utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(
            f"`{field}` refers to the file {path}, but that cannot be read: {reason}; check the path", field=field
        ) from None
    if not found:
        raise UserError(
            f"`{field}` refers to the file {path}, but its first line is empty; write it there", field=field
        )
    return found


_USER_INFO = re.compile(r"(\w[\w+.-]*://[^\s:/]*:)([^\s'\"]*)(@)")
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
