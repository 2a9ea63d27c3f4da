"""The command line: one file a group of verbs, each an option list and one call.

Nothing heavy is imported before a verb runs.

cache.py    verbs of `qtarget cache`: build, verify, list, prune
init.py     the verb that comes before there is a study
look.py     verbs that look: presets, status, compare, report, reproduce, ui
main.py     every verb under one name, and what ends a process with which exit code
options.py  arguments and options that several verbs share, and how a verb speaks
queue.py    verbs that put something into a queue: add, rerun
study.py    verbs that work on a study: check, run, join, quickstart, confirm
winner.py   verbs for what comes after a search: export, train, evaluate
"""
