"""An engine without a model: does in milliseconds what a script tells it, trial by trial and attempt by attempt.

`script.json` in the study's folder maps a trial's number to the behaviours of its attempts; the last one repeats.
Attempts are counted in the trial's folder, so that they survive the engine's death.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

FINGERPRINTS = {"data": "d", "model": "m", "evaluation": "e"}


def send(kind: str, **fields: object) -> None:
    print(json.dumps({"type": kind, **fields}), flush=True)


def main(study: Path) -> None:
    script = json.loads((study / "script.json").read_text()) if (study / "script.json").exists() else {}
    if script.get("start") == "user":
        send("failed", number=None, failure={"kind": "user", "message": "`path` must exist", "field": "data.path"})
        return
    if script.get("start") == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if script.get("start") == "slow":
        time.sleep(3600)
    print("words from a library", file=sys.stderr)
    size = script.get("checkpoint_bytes", 0)
    send("ready", fingerprints=FINGERPRINTS | script.get("fingerprints", {}), inputs={}, checkpoint_bytes=size)
    while line := sys.stdin.readline():
        command = json.loads(line)
        if command["type"] == "run":
            run(command, script)


def run(command: dict, script: dict) -> None:
    folder, number, spec = Path(command["folder"]), command["number"], command["spec"]
    attempts = folder / "attempts"
    attempt = len(attempts.read_text()) if attempts.exists() else 0
    attempts.write_text("x" * (attempt + 1))
    (folder / "micro_batches").open("a").write(f"{command['micro_batch']}\n")
    behaviours = script.get(str(number), ["finish"])
    behaviour = behaviours[min(attempt, len(behaviours) - 1)]
    steps = spec["training"]["steps"]
    for step in range(1, (steps if script.get("all_steps") else 1) + 1):
        send("step", number=number, step=step, steps=steps, metrics={"loss": 1.0 / step})
    if behaviour == "save":
        (folder / "checkpoint").mkdir(exist_ok=True)
        (folder / "checkpoint" / "state.safetensors").write_text("x" * (attempt + 1))
    fall(behaviour)
    if behaviour in ("oom", "diverged", "disk", "bug", "user"):
        failure = {"kind": behaviour, "message": f"{behaviour} in trial", "traceback": "line 1\nline 2"}
        send("failed", number=number, failure=failure)
        sys.exit(1)
    if behaviour == "wait":
        wait_for_stop(number)
        return
    time.sleep(script.get("seconds", 0))
    while script.get("wait_for_word") and not (folder.parents[1] / "word").exists():
        time.sleep(0.01)
    score = float(script.get("scores", {}).get(str(number), spec["training"]["learning_rate"]))
    if "by_target" in script:
        score = replicate_score(spec, script["by_target"])
    if ends_at_a_rung(command, score):
        return
    if script.get("items"):
        write_items(folder, score)
    finish(folder, number, score, "complete")


def ends_at_a_rung(command: dict, score: float) -> bool:
    """Tell the score at each rung that is left; whether the trial ends there, or waits."""
    folder, number = Path(command["folder"]), command["number"]
    for step in (rung["step"] for rung in command["spec"]["rungs"]):
        if step in command.get("passed", ()):
            continue
        send("rung", number=number, step=step, score=score, standard_error=0.1)
        word = json.loads(sys.stdin.readline())
        if word.get("prune"):
            finish(folder, number, score, "pruned")
            return True
        if word["type"] == "stop" or word["pause"]:
            (folder / "checkpoint").mkdir(exist_ok=True)
            send("stopped" if word["type"] == "stop" else "paused", number=number, step=step)
            return True
    return False


def replicate_score(spec: dict, by_target: dict) -> float:
    """Of a training with a fresh seed: its target's score, give or take a problem of 16."""
    found = by_target.get(json.dumps(spec["target"], sort_keys=True), by_target["other"])
    long = spec["training"]["steps"] > 8
    return found + (spec["seed"] % 3 - 1) / 16 + (by_target.get("longer", 0) if long else 0)


def fall(behaviour: str) -> None:
    """End or hang as a real engine may, without a last word."""
    if behaviour in ("kill", "save"):
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour == "hang":
        time.sleep(3600)


def write_items(folder: Path, score: float) -> None:
    verdicts = ["correct" if index < 16 * score else "wrong" for index in range(16)]
    lines = [json.dumps({"problem": f"report-{index:03d}", "verdict": v}) for index, v in enumerate(verdicts)]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")


def wait_for_stop(number: int) -> None:
    while line := sys.stdin.readline():
        if json.loads(line)["type"] == "stop":
            send("stopped", number=number, step=1)
            return


def finish(folder: Path, number: int, score: float, state: str) -> None:
    result = {
        "state": state,
        "score": score,
        "standard_error": 0.01,
        "num_problems": 16,
        "samples": 1,
        "steps": 8,
        "verdicts": {"correct": round(16 * score), "wrong": 16 - round(16 * score)},
    }
    (folder / "result.json").write_text(json.dumps(result))
    send("result", number=number, result=result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
