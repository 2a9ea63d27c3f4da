"""Problems with known answers: where rows come from, how a row becomes question and gold, which split it is in.

Splits are decided by content, so that what a trial sees can never be what confirms it.

asking.py        what comes before a question: system message and worked examples, by default the demonstrations'
choice_golds.py  which option a data set's gold names: by key, letter, text or index, one way in the whole column
gym_tasks.py     reasoning-gym tasks (extra `gym`): streams of generated problems that do not repeat
harness_tasks.py tasks of lm-evaluation-harness (extra `lm-eval`): documents and prompts as the library makes them
load.py          problems with known answers, from files, data sets, named suites and other libraries' tasks
mismatches.py    what differs between learning and scoring: a model is asked as its demonstrations ask, or it is said
problem.py       one question with its known answer, ready to be asked and judged
prompting.py     from a data set's row to the text of a user message and the gold answer
splits.py        which problem belongs to which split, decided by its content alone
suites.py        the usual benchmarks by name: hub ids, columns and prompts as their authors publish them
tables.py        rows of a task's data, read as demonstrations are
untouched.py     problems for a confirmation that no trial has seen, where those kept for it do not suffice
"""
