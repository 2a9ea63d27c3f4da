"""`python -m qtarget`: the command line."""

from .search.cli.main import main

main()
