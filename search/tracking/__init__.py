"""MLflow, written from events and never read back: what a study does goes to disk first, then to the server.

A trial never fails, and never waits, because of tracking.

address.py     which store a study is tracked in, and what its runs are found by there
connection.py  the way to a tracking store, and which of its answers are refusals
describe.py    what MLflow's pages say of a run in words: who made it with what, and its description
inputs.py      what a trial learnt from and was scored on, as MLflow's datasets
mlflow.py      MLflow, written from events and never read back into the study: a parent run a study
models.py      the model of each finished trial among MLflow's logged models: named, compared and scored on a data set
               there
moves.py       a study's runs when its folder is somewhere else by now: moved, they are the same runs; copied, others
names.py       what MLflow takes for a name and for a value
spool.py       a journal of study events on disk, so that tracking can fall behind
writer.py      spooled events become runs, parameters and metrics
"""
