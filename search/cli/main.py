"""The command line: every verb under one name. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from ...spaces.errors import UserError
from ..launchers.home import homely
from ..study.secrets import redact
from ..terminal.output import unbreakable_output
from .cache import cache
from .look import compare, presets, report, reproduce, status, ui, verify
from .queue import add, rerun
from .study import check, confirm, join, quickstart, run
from .winner import evaluate, export, train

app = typer.Typer(
    help="Find the best target distribution for supervised fine-tuning on your data and your model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    quickstart, check, run, join, add, rerun, status, confirm, report, compare, export, train, evaluate, reproduce,
    verify, ui, presets,
):  # fmt: skip
    app.command()(verb)
app.add_typer(cache, name="cache")


def main() -> NoReturn:
    """Entry point: exit 0 done, 1 failed, 2 usage or configuration, 130 interrupted."""
    with unbreakable_output():
        os.environ.update(homely(os.environ))
        try:
            app(standalone_mode=True)
        except UserError as error:
            print(f"qtarget: {redact(str(error))}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("qtarget: interrupted; the same command goes on where it stopped", file=sys.stderr)
            raise SystemExit(130) from None
    raise SystemExit(0)
