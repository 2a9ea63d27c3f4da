r"""Where in a completion its final answer stands: explicit marks first, else only where a reader has no doubt.

What is found is handed on as written; nothing is compared here.

answers.py   the final answer of a completion, by these rules in order
choices.py   which option of a multiple-choice question a text names
doubt.py     what the text around an answer makes of it: takes it back, supposes it, makes it a term
marks.py     explicit marks: tags, boxes, `####`, and "the answer is" in the common languages
sentences.py an answer as written, and the first sentence behind a mark
unmarked.py  the value that a completion without a mark comes to: bold, or the last one in its last line that has any
"""
