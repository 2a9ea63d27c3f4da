"""Trust families: γ_t says how much of the target's mass lies on the observed token.

One file a kind of evidence; a family is one small class in it.

base.py        the base of every trust family: γ_t says how much of the target's mass lies on the observed token
batch.py       trust from the statistics of the whole batch of labels
bump.py        trust with a peak: in tokens the model neither knows nor finds hopeless
confidence.py  trust as a function of the label's probability p alone
ratio.py       trust from comparisons with other policies, or from a data column
shape.py       trust from the shape of the whole distribution: entropy, concentration, mass
"""
