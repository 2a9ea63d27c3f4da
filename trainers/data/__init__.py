"""From rows of text to forward passes: demonstrations read, rendered, tokenised, masked, cut into batches.

Which tokens carry a loss is decided here, once. An export carries the files of this room that read and tokenise, as
they are (`search/export/reading.py`): they import each other, paths and errors alone.

batches.py         which demonstrations each optimiser step sees, and how they are cut into forward passes
demonstrations.py  tokenised demonstrations: what a fine-tune learns from, after templates, masks and length limits, and
                   what is kept of each source
files.py           which rows a `path` names: a file, files by pattern, a folder's split, a hub data set
fit.py             do demonstrations fit a model: a row for every token, a position for every input, an end that
                   generation knows?
formats.py         rows of one file as it is now: JSON lines, JSON, CSV and Parquet, compressed or not
load.py            from settings to demonstrations: the files below, one after the other
messages.py        the messages of a conversation, checked: roles, text, calls of tools, which of them are learnt
notes.py           what is worth saying about data that are used nevertheless
shapes.py          from a row to a demonstration: messages, ShareGPT, prompt and completion, Alpaca, text
sources.py         where demonstrations come from, and what decides how their rows are read
style.py           how demonstrations ask: system message, variables, examples, which tasks take over
template.py        a chat template: what it is given, and what to say when it cannot render that
tokenization.py    from text to tokens: completion mask, seams, and a row for each token
turns.py           demonstrations as they were read: messages or text, what is learnt, what their row says of each token
"""
