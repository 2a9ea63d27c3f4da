"""Everything that only a GPU can show, measured by one command: `benchmarks/gpu/run_all.sh RESULTS`.

Results are one JSON file a measurement, whole or not there, and `all.json` with all of them. What is done is not done
again, so a run may be cut off at any moment. Without a GPU, and with `--tiny`, every part runs in seconds.

run_all.sh     runs all parts within a time, again and again while the process they run in is lost
prepare.sh     collects what a machine without a network lacks, into build/gpu/wheels
installed.txt  what such a machine is taken to have; needed.txt: what the parts need beside it
run.py         the parts in their order, each within its time
record.py      the folder of results
made.py        sizes, and models, data and problems made of random numbers
parity.py      part a: the kernel and every preset against float64
losses.py      part b: the loss layer against bare matrix products and what others do
steps.py       part c: whole training steps of a model of 1.5 billion weights
memory.py      part f: memory that does not suffice, in training, scoring and cache building
generation.py  part e: answers per second, and whether they are those of generate()
studies.py     part d: a study from end to end
engines.py     part g: two engines on one GPU, one killed in a kernel
peers.py       the loss layers of other libraries, called as published
table.py       the results as tables of docs/performance.md
"""
