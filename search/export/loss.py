"""`target_loss.py` of an export: the frame of trainers/standalone/loss.py with one design put in."""

from __future__ import annotations

from pathlib import Path

from ...spaces.target import TargetSpec
from .source import design_source

FRAME = Path(__file__).parents[2] / "trainers" / "standalone" / "loss.py"
BEGIN, END = "# <design>\n", "# </design>\n"


def _refresh(spec: TargetSpec) -> tuple[int | None, float]:
    return (None, 0.0) if spec.previous is None else (spec.previous.every, spec.previous.decay)


def loss_source(spec: TargetSpec) -> str:
    """A module that needs torch alone and holds the loss of this design and nothing else."""
    frame = FRAME.read_text("utf-8")
    before, _, rest = frame.partition(BEGIN)
    after = rest.partition(END)[2]
    docstring, _, code = before.removeprefix('"""').partition('"""')
    about = docstring.partition("\n\n")[2]
    title = f'"""The target loss of one design: {spec.title()}.\n\nWritten by `qtarget export`; needs torch alone.\n\n'
    constants = (
        f"TITLE = {spec.title()!r}\n"
        f"NEEDS: frozenset[str] = frozenset({sorted(spec.needs)!r})\n"
        '"""What the design looks at beyond the student and the labels."""\n'
        f"NEEDS_ROWS: frozenset[str] = frozenset({sorted(spec.needs_rows)!r})\n"
        '"""Of which models it sees more than the label\'s log-probability."""\n'
        f"REFRESH: tuple[int | None, float] = {_refresh(spec)!r}\n"
        '"""Steps between refreshes of the previous policy (None: as the training is set), and what it then keeps of '
        'itself."""\n'
        f"BATCH_SCOPE = {spec.gamma.scope == 'batch'}\n"
        '"""Whether the trust of a token depends on other tokens of its batch."""\n'
        f"DENOMINATOR = {spec.denominator!r}\n"
        '"""What a summed loss is divided by: `all` tokens, those `kept` by a mask, or the sum of their `weights`."""\n'
    )
    return f'{title}{about}"""{code}{constants}\n\n{design_source(spec)}{after}'
