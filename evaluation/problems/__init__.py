"""Problems with known answers: where rows come from, how a row becomes question and gold, which split it is in.

Splits are decided by content, so that what a trial sees can never be what confirms it.

tables.py        rows of a task's data, read as demonstrations are
untouched.py     problems for a confirmation that no trial has seen, where those kept for it do not suffice
"""
