"""`qtarget run` as its own process, with scripted engines: `python shown_run.py STUDY.yaml [options]`."""

import sys

from scripted_study import scripted

from qtarget.search.cli.main import main
from qtarget.search.loop import supervisor

if __name__ == "__main__":
    original = supervisor._supervise
    supervisor._supervise = lambda *given: original(*given[:-1], scripted)
    sys.argv = ["qtarget", "run", *sys.argv[1:]]
    main()
