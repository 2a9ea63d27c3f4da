"""What a study is, as data: its file, its trials, its winner, what can happen in it and what can fail.

Nothing here opens a storage or starts a process; every other room of this floor may import it.

campaign_config.py  a campaign as one YAML file: a study file with `matrix`, expanded to a study for each pair
config.py           a study as one YAML file: everything that decides it, validated before anything starts
config_file.py      reading a study's YAML: plain data, keys once, and each fault with its path in the file
events.py           what happens in a study, as data: the supervisor emits, progress bars and tracking listen
faults.py           every fault of a file in words: its path in the file, the rule, the value and the remedy
failures.py         kinds of failure, and what each means for a trial: try again, infeasible, failed
files.py            writing and reading small files so that a crash leaves the old one or the new one, and names, of
                    shared files and of studies
folder_file.py      the configuration that a study's folder keeps, read as it is where the folder lies now
secrets.py          secrets: `${NAME}` and `${file:PATH}` keep them out of files, and nothing that is shown has them;
                    addresses of databases and servers as people write them
parts.py            the parts of a study's file beside its model, data and space: search, confirmation, tracking, limits
resume.py           what may change between two starts of one study: whatever does not decide a trial
training_knobs.py   training settings that are searched along: which there are, and what they may be
trial.py            one trial as data: what decides it, and the folder that its files live in
winner_file.py      winner.yaml: everything a full training run needs, written by `qtarget export` and read by
                    `qtarget train`
"""
