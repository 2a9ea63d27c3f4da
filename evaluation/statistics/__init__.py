"""How sure a score is: intervals, paired comparisons, races between designs, and the confirmation of a winner.

All of it is paired: the same problems, the same seeds, the same noise.

confirmation.py  is a design better than plain SFT? Decided once, on fresh seeds and untouched problems
racing.py        ends the evaluation of a trial that will not beat the incumbent, on the items both have answered
stats.py         scores with their uncertainty: means, intervals, paired comparisons, corrections for having chosen
"""
