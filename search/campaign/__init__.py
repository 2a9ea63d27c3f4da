"""One call of `qtarget run`: a study, or many pairs of model and data under one budget.

A campaign has no state of its own: everything is read from its studies.

budget.py   one deadline and one number of hours for all studies, and what of them confirmations need
check.py    `qtarget check` on a campaign: every pair is tried, all faults are said at once, and how long all of it
            takes
live.py     `qtarget status --live` on a campaign: progress of every pair, what runs, what is spent and left, what
            went wrong
pairs.py    the pairs of a campaign as a report sees them: how far each is, what it found, and what all of them
            compare to
report.py   `qtarget report` on a campaign: one page for all pairs, each pair's own report beside it
run.py      one call of `qtarget run` on a campaign: its studies in turn, a slice of trials each
session.py  one call of `qtarget run` or `qtarget status`: the study, its listeners, and the table at the end
status.py   how far the studies of a campaign are: one row a study, read from the studies themselves
"""
