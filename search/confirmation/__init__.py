"""Who is confirmed, what it will cost, and which training comes next.

Decides from records of trials alone; a confirmation itself runs like any study.

candidates.py  plain SFT, the best published objective and the best designs of a search
power.py       how noisy this study's runs are, what a confirmation would find, and for how many trainings
race.py        from the runs of a confirmation to the next ones, and to its verdict
"""
