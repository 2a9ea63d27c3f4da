"""From a completion to a verdict: find the final answer, compare it with the gold, in workers that can be killed.

Strict by principle: an answer that a careful reader would doubt is wrong.

answers.py  finds the final answer in a completion, by ordered rules from the most specific to the most liberal
compare.py  compares an extracted answer with the gold, one function a kind; what needs sympy is left to a worker
gym.py      reasoning-gym items and answers as a worker makes and scores them: its scorers, made strict
numeric.py  reads one number out of an answer, exactly, and compares it with the gold
pool.py     verification workers: spawned once, reused, killed at the wall-clock limit, replaced
verdict.py  what can become of one completion
verify.py   is a completion's final answer the right one? One strict verdict, the same in any thread and process
worker.py   the killable process in which answers are compared: one JSON object a line in, one out
"""
