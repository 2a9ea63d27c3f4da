"""An engine that eats memory in a control group of its own, until the kernel ends it; the second one is modest."""

import os
import sys
from pathlib import Path

import scripted_engine


def eat(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))
    eaten = []
    while True:
        eaten.append(os.urandom(1 << 20) * 8)


if __name__ == "__main__":
    study = Path(sys.argv[1])
    if not (study / "eaten").exists():
        (study / "eaten").touch()
        scripted_engine.send("ready", fingerprints=scripted_engine.FINGERPRINTS, inputs={})
        sys.stdin.readline()
        eat(Path(os.environ["CONTROL_GROUP"]))
    scripted_engine.main(study)
