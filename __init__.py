"""qtarget: find the best target distribution for supervised fine-tuning on one data set and one model.

Four floors, each importing only itself and the floors below: `search`, `evaluation`, `trainers`, `spaces`.

    from qtarget import Study                            # a study from Python
    from qtarget import TargetLoss, compute_loss_func    # one loss in a training loop or trainer of one's own

What these names need is imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .search.python.study import Study
    from .trainers.loss.hook import compute_loss_func
    from .trainers.loss.module import TargetLoss

__version__ = "0.1.0"

__all__ = ["Study", "TargetLoss", "__version__", "compute_loss_func"]

_PLACES = {
    "Study": ".search.python.study",
    "TargetLoss": ".trainers.loss.module",
    "compute_loss_func": ".trainers.loss.hook",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
