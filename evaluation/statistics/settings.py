"""What decides the race of a confirmation. Fixed before its first run."""

from typing import Annotated

from pydantic import Field

from ...spaces.settings import Settings


class FinalsSettings(Settings):
    """How candidates race."""

    seeds: Annotated[int, Field(ge=2)] = 24
    """Most runs of a candidate, each with a fresh seed."""
    detect: Annotated[float, Field(gt=0, lt=1)] = 0.04
    """Smallest lead that is looked for; 0.04 is four points. It decides who leaves the race, never what is claimed."""
    patience: Annotated[float, Field(gt=1)] = 1.95
    """A candidate leaves once its runs are so many times as probable without a lead as with one of `detect`."""
    noise: Annotated[float, Field(ge=0)] | None = None
    """What was known of the standard deviation between runs, problems included; None: nothing."""
    noise_freedom: Annotated[float, Field(gt=0)] = 2.0
    """Degrees of freedom that `noise` counts as."""
    longer: Annotated[float, Field(gt=1)] | None = 2.0
    """Winner and rivals are also trained at so many times the steps; None: not."""
    longer_seeds: Annotated[int, Field(ge=2)] = 3
    """Most runs of each of them."""
    most_forgotten: float | None = None
    """A candidate that forgets more on average is not the winner while another may be; None: whatever it forgets."""
    error_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Most probable share of studies with any wrong claim, all questions together."""
