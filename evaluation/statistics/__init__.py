"""How sure a score is: intervals, paired comparisons, races between designs, and the confirmation of a winner.

Knows numbers only. Comparisons are of the same problems; a confirmation allows for the noise of training runs, too.

confirmation.py  the verdict of a confirmation: three answers, each with its interval
evidence.py      what a confirmation is decided on: tables of scores, or runs of many simulated studies
finals.py        the race of a confirmation: which training comes next
leads.py         is one candidate ahead of another? Contrasts of means where problems and seeds are both random draws
power.py         what a confirmation would find, and for how many trainings, by simulated races
questions.py     the three questions of a confirmation, asked after each run
racing.py        ends the evaluation of a trial that will not beat the incumbent, on the items both have answered
sequential.py    how small a p-value must be when one looks after every seed
settings.py      what decides the race of a confirmation
standing.py      how the races of a confirmation stand, and what is known of a lead
stats.py         scores with their uncertainty: means, intervals, paired comparisons, corrections for having chosen
"""
