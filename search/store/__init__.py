"""Where a study lives and survives: the queue in Optuna's storage, leases on its trials, what they came to.

The only room that opens a storage; what passes (a full disk, a database that is away) is waited out here.

copies.py    a copy of an SQLite file that may be read and not written
disk.py      room on the disk: when a trial may start, and which checkpoints make way
halving.py   asynchronous successive halving over the queue: trials that pause at rungs, and which of them go on
history.py   what a study's trials came to, for tables, reports and exports
leases.py    who is working on a trial: a lease each, renewed by the supervisor, reaped when the supervisor is gone
outcome.py   from a trial's result file to its verdict, and to the words that tell people why
patience.py  waiting out what passes: a full disk, or a database that is away, pauses a study
prior.py     what earlier studies taught, as a study keeps it: ranked points, and the sampler that uses them
queue.py     the queue is the budget: N slots in the storage, claimed, given back and finished under the study's lock
sampling.py  Optuna's samplers and pruners, as a study's settings name them
server.py    what database servers want: a driver, one lock a study, room for long texts, to be told from an outage
slots.py     what a slot of the queue is: the study's own, put in by hand, withdrawn, or a failed one once more
storage.py   opening the store that holds a study's queue: SQLite by default, a database server for several hosts
study.py     a study in its storage and on disk: created when its inputs are known to work
"""
