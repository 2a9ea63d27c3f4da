"""From rows of text to forward passes: demonstrations read, tokenised, masked, cut into batches.

Which tokens carry a loss is decided here, once.

batches.py         which demonstrations each optimiser step sees, and how they are cut into forward passes
demonstrations.py  tokenised demonstrations: what a fine-tune learns from, after templates, masks and length limits
fit.py             do demonstrations fit a model: a row for every token, a position for every input, an end that
                   generation knows?
load.py            demonstrations from a local file, a folder or a hub data set, in the shapes that data sets come in
packing.py         sequences of one forward pass in one row without padding: none sees another, and no gradient
                   changes
tokenization.py    from a row of text to tokens: chat template, completion mask, critical spans
"""
