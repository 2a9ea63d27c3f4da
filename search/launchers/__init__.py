"""Where engines run: processes of this host, ranks that train together, nodes of a cluster.

Only these files know which; everyone else holds a `RunningEngine` and a pipe.

choose.py   where engines run: on this host or over a cluster
helper.py   short work that needs torch, in a process of its own: shows progress, returns its last message
home.py     a home folder where there is none that can be written
local.py    engines on this host: one process or several ranks each, every engine on devices of its own
process.py  what every engine is to its supervisor, and an engine in one process of this host
ranks.py    an engine of several processes of this host, its ranks, that train one model together
ray.py      engines on the nodes of a Ray cluster (extra `ray`): one a GPU, or one a node
"""
