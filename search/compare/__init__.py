"""Which designs win where, and which hold across pairs of model and data.

Reads finished studies; trains nothing.

figure.py   the figure of a comparison: where each shared design ranks in each pair, with intervals
pairs.py    what a comparison needs of each study: its designs at their best learning rate, and the score of every
            problem
ranking.py  `qtarget compare`: which designs win where, and which hold across pairs of model and data
tables.py   a comparison for people: one table on the terminal, the same in Markdown, and sentences
"""
