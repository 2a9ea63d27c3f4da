"""What a person sees of one study on a terminal: progress, tables, sentences, the live view, the check.

Reads what other rooms found; decides nothing.

check.py     `qtarget check`: what would fail in the night fails now
learnt.py    what is learnt and what is asked, token by token
live.py      `qtarget status --live`: what runs, how far it is, what is spent and left, the best so far, what went
             wrong
output.py    standard output and error that cannot end a command
reach.py     whether a study's storage and its tracking store can be opened
progress.py  what a person sees while a study runs: a bar for it and for each running trial
rungs.py     rungs of a study: what of the budget in steps is spent, who waits where, and how a rung ranks
status.py    `qtarget status`: the table of a study and what is left of it
tables.py    tables and sentences for people: the trials of a study, the winner against plain SFT
verdict.py   a confirmation's verdict: better than plain SFT, better than what is published, and does the lead last
visible.py   text of other people made visible: nothing in it steers a terminal
"""
