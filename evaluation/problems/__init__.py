"""Problems with known answers: where rows come from, how a row becomes question and gold, which split it is in.

Splits are decided by content, so that what a trial sees can never be what confirms it.

gym_tasks.py  reasoning-gym tasks (extra `gym`): streams of generated problems that do not repeat
load.py       problems with known answers, from files, data sets, reasoning-gym tasks and named suites
prompting.py  from a data set's row to the text of a user message and the gold answer
splits.py     which problem belongs to which split, decided by its content alone
suites.py     the usual benchmarks by name: hub ids, columns and prompts as their authors publish them
tables.py     rows of a data set: JSONL and Parquet files directly, anything else through `datasets.load_dataset`
"""
