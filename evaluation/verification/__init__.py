"""From a completion to a verdict: its final answer is compared with the gold, in workers that can be killed.

Strict by principle: an answer that a careful reader would doubt is wrong.

compare.py         compares an extracted answer with the gold, one function a kind; what needs sympy is left to a worker
gym.py             reasoning-gym items and answers as a worker makes and scores them: its scorers, made strict
harness.py         tasks of lm-evaluation-harness as a worker loads, asks and scores them: its rules, item by item
harness_scores.py  what such a task makes of answers: its filters and its metric, one document at a time
pool.py            verification workers: spawned once, reused, killed at the wall-clock limit, replaced
rejudge.py         stored answers judged again, without a model: what the verdict is now, and what changed
verdict.py         what can become of one completion
verify.py          is a completion's final answer the right one? One strict verdict, the same in any thread and process
worker.py          the killable process in which answers are compared: one JSON object a line in, one out
"""
