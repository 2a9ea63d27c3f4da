"""One HTML file, and Markdown, that shows what a study found and works offline.

Reads storage and trial folders as they are; what is missing or damaged is said on the page.

costs.py     what a study has cost, and what went wrong on the way: time, tokens, attempts, failures
data.py      what a report finds of a study: storage, trial folders, verdict; what is missing or damaged is said
drawing.py   how a report draws: matplotlib's figures as inline SVG whose colours follow the page's light or dark
             scheme
figures.py   the pictures of a report, one function each: pairs and designs against SFT, curves, history, importance,
             slices
items.py     the answers of two trials side by side: paired differences, what was gained and lost, accuracy by slice
page.py      from a report's values to its text: templates with every value escaped, and a policy that lets nothing
             else run
pictures.py  what a report shows of designs and real tokens: computed once where the models are, kept in the study's
             folder
sheets.py    the items files of a study, each read once, with notes on what is torn or gone
write.py     `qtarget report`: what a study found, as one HTML file that needs nothing else, and as Markdown beside it
"""
