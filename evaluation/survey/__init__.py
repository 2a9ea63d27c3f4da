"""A look at what somebody brings: a model, demonstrations, problems or none. Nothing is trained.

`qtarget init` asks for it before there is a study: which columns ask and answer, how long the demonstrations are, how
answers can be compared, which problems can be held out, which model beside this one could teach it.

columns.py     which columns of demonstrations and problems ask, and which answer
facts.py       what was found, as data; free of torch, so that any process may read it
golds.py       how the answers of demonstrations or problems can be compared: their kind, and why
held_out.py    problems split off demonstrations by content, and the demonstrations that are left
learnt.py      demonstrations as tokens: how long, and what of them is learnt
look.py        one request answered: everything above, one after the other
machine.py     the device: its name, its memory, how fast it multiplies
problems.py    the tasks that somebody names: files, suites, tasks of reasoning-gym and lm-eval
siblings.py    models beside a model that share its vocabulary and are larger
"""
