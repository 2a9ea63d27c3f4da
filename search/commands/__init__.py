"""What a verb of the command line does where that is more than asking another room.

Helper processes are started here, servers too; the options of the verbs are next door, in `cli`.

by_hand.py     `qtarget add` and `qtarget rerun`: own designs, and failed trials once more, put into a queue
cache.py       `qtarget cache`: build, verify, list and prune what teachers and references answered
dashboard.py   optuna-dashboard over the storages of one study or of a campaign: a server process of `qtarget ui`
evaluate.py    `qtarget evaluate`: the score of a finished model on the tasks of a file
quickstart.py  the embedded study: build the tiny world in a process of its own (it needs torch)
reproduce.py   `qtarget reproduce`: one trial again, from its spec.json alone, and how far the score is from the one
               it had
train.py       `qtarget train`: the full run of an exported target, in processes of its own, shown and tracked here
ui.py          `qtarget ui`: optuna-dashboard and the MLflow UI of a study or a campaign, on free local ports, until
               Ctrl-C
verify.py      `qtarget verify`: stored answers judged again, offline, and what changed
"""
