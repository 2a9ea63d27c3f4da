"""Standard output and error that cannot end a command: a closed pipe or terminal, a full disk, an old locale."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

FULL = (errno.ENOSPC, errno.EDQUOT)


class Output:
    """A text stream whose writes never fail: what cannot be written is left out.

    Characters that its encoding lacks are written as escapes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        """Why something was left out, if it was."""
        with suppress(AttributeError, ValueError, OSError):  # not a stream of the interpreter's own
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._note(error)
        except ValueError:  # it was closed
            pass
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._note(error)
        except ValueError:
            pass

    def _note(self, error: OSError) -> None:
        """A full disk may have room again; whoever read the other end will not come back."""
        self.failure = error
        if error.errno not in FULL:
            self.discard()

    def discard(self) -> None:
        """Send everything from now on to nowhere, what is still in the buffer too."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def unbreakable_output() -> Iterator[None]:
    """Inside, standard output and error are `Output`s; at the end nothing is left that could fail at exit."""
    outputs = [None if stream is None else Output(stream) for stream in (sys.stdout, sys.stderr)]
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = outputs
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for output in filter(None, outputs):
            output.flush()
            if output.failure is not None:
                output.discard()


def lost_output() -> OSError | None:
    """Why a line of standard output could not be written, if one could not."""
    failure: OSError | None = getattr(sys.stdout, "failure", None)
    return failure
