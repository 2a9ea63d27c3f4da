"""The verdict of a race over tables of scores, for tests that need one without trainings."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from qtarget.evaluation.statistics.confirmation import Confirmation, conclude
from qtarget.evaluation.statistics.evidence import Tables
from qtarget.evaluation.statistics.finals import Finals, replay
from qtarget.evaluation.statistics.settings import FinalsSettings
from qtarget.evaluation.statistics.standing import Line


def confirm(sft: ArrayLike, designs: Mapping[str, ArrayLike], generator: np.random.Generator) -> Confirmation:
    """Race designs with scores (P, seeds) against plain SFT, as long as there are seeds."""
    tables = [np.asarray(each, dtype=float) for each in (sft, *designs.values())]
    evidence = Tables([*tables, *(np.zeros((len(tables[0]), 0)) for _ in tables)])
    settings = FinalsSettings(seeds=tables[0].shape[1], longer=None, patience=1e6)
    race = Finals(Line(len(tables)), settings, evidence)
    replay(race, evidence.available)
    return conclude(race, evidence, ["sft", *designs], generator, resamples=50)
