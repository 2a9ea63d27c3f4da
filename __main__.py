"""`python -m qtarget`: the command line."""

import sys

if not sys.flags.safe_path:  # `-m` has put the current folder first, whose `random.py` is not Python's
    del sys.path[0]

from .search.cli.main import main

main()
