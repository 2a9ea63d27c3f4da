"""Where teacher and reference distributions come from: live models, or caches on disk shared by all trials of all
studies.

A cache is complete when its manifest is there, and a stale key is an error.

answers.py  what a frozen model said of whole batches, kept for the next trial that asks the same
bias.py     what a cache loses: the cached teacher against the exact one, seen from a given student
build.py    one pass of a teacher over the demonstrations, written as a cache that every trial and study shares
cache.py    reading a teacher cache: rows of a micro-batch, straight from memory-mapped shards
cached.py   the cached distribution of a model that a study names: opened when it is there
format.py   on-disk form of a teacher's next-token distributions: the key, the packed shards, the manifest
key.py      the key of a cache, from what a study names: found without loading the teacher's weights
rows.py     from a teacher's logits to what a cache keeps of each token
sources.py  where teacher and reference distributions come from while training: a frozen model in memory
store.py    caches on disk as a whole: where they lie, what is wrong with one, what there is, what may go
"""
