"""qtarget: find the best target distribution for supervised fine-tuning on one data set and one model.

Four floors, each importing only itself and the floors below: `search`, `evaluation`, `trainers`, `spaces`.
"""

__version__ = "0.1.0"
