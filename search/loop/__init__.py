"""One `run`: slots are claimed, become trials, go through engines, and come back as results or as another attempt.

Knows how long it may go on, whom to confirm, and how it ended; shows nothing.

budget.py      how long a call may go on, besides the slots of the queue, and what it keeps for the confirmation
by_hand.py     what people put into a queue: designs of their own, and failed trials once more
confirm.py     confirmation: the best designs and plain SFT, retrained with fresh seeds
dispatch.py    from the queue to an idle engine: slots are asked for, claimed and planned
log.py         run.log in the study's folder: what happened and when, whatever becomes of the terminal
plan.py        from a claimed slot to its trial: baselines as they were published, everything else from the sampler
seen.py        which problems trials have answered, so that a confirmation asks others
rivals.py      plain SFT and the published objectives, tuned over the same training knobs as the designs
signals.py     signals as something to wait on: the first asks for a clean stop, the same one again for a quick one
summary.py     how a call of `run_study` ended, and how each slot did
supervisor.py  one `qtarget run`: create or resume the study, keep its engines busy until no slot is left
task.py        a claimed trial on its way through an engine
warm_start.py  starting from finished studies: reads their trials, ranks them, picks the best designs
worker.py      one engine and the trial it runs, as the supervisor sees them: commands out, events in
"""
