"""The command line: every verb under one name. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, NoReturn

import typer

from ... import __version__
from ...spaces.errors import UserError
from ..launchers.home import homely
from ..study.secrets import redact
from ..terminal.output import unbreakable_output
from .cache import cache
from .init import init
from .look import compare, presets, report, reproduce, status, ui, verify
from .options import WholeHelp, WholeHelpGroup
from .queue import add, rerun
from .study import check, confirm, join, quickstart, run
from .winner import evaluate, export, train

app = typer.Typer(
    help="Find the best target distribution for supervised fine-tuning on your data and your model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"qtarget {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find the best target distribution for supervised fine-tuning on your data and your model."""


for verb in (
    quickstart, init, check, run, join, add, rerun, status, confirm, report, compare, export, train, evaluate,
    reproduce, verify, ui, presets,
):  # fmt: skip
    app.command(cls=WholeHelp)(verb)
app.add_typer(cache, name="cache", cls=WholeHelpGroup)
OF_THE_PLACE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""What is wrong with a file's place, and not with the program."""


def main() -> NoReturn:
    """Entry point: exit 0 done, 1 failed, 2 usage or configuration, 130 interrupted."""
    with unbreakable_output():
        os.environ.update(homely(os.environ))
        try:
            app(standalone_mode=True)
        except UserError as error:
            print(f"qtarget: {redact(str(error))}", file=sys.stderr)
            raise SystemExit(2) from None
        except OSError as error:
            if error.errno not in OF_THE_PLACE or error.filename is None:
                raise
            print(f"qtarget: {_place(error)}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("qtarget: interrupted; the same command goes on where it stopped", file=sys.stderr)
            raise SystemExit(130) from None
    raise SystemExit(0)


def _place(error: OSError) -> str:
    """What may not be read or written, why, and what to do about it."""
    named = redact(str(error.filename))
    return f"{named} must be open to this user, but: {error.strerror}; mend its rights, or name another place"
