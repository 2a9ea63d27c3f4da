"""A study from Python: `from qtarget import Study`, in a script or a notebook.

The same study as on the command line: what one begins, the other goes on with. No torch in this process either.

frame.py   trials as a pandas frame, or as plain rows
page.py    reports inside a notebook, and where progress is printed
study.py   the study itself: check, run, confirm, trials, best, verdict, report, export
"""
