"""Results as tables: printed, or put into a document between its marks.

    python -m benchmarks.gpu.table RESULTS [--into docs/performance.md]

RESULTS is a folder of results, or the `all.json` of one. In the document everything between the lines `MARK begin` and
`MARK end` is replaced; results of tiny sizes and of a machine without a GPU are not put there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu results: begin -->", "<!-- gpu results: end -->"
Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--into", type=Path, help="document with the marks")
    given = parser.parse_args()
    path = given.results / "all.json" if given.results.is_dir() else given.results
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"RESULTS must hold the JSON of a run, but {path} cannot be read ({error})")
    text = "\n".join(lines(found))
    if given.into is None:
        print(text)
        return
    machine = found["machine"]
    if machine["device"] == "cpu" or machine["sizes"] != "full":
        sys.exit(f"only full sizes on a GPU belong there, but these are {machine['sizes']} on {machine['device']}")
    given.into.write_text(put(given.into.read_text("utf-8"), text, given.into), "utf-8")


def put(document: str, text: str, path: Path) -> str:
    """The document with `text` between its marks; exits where it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{path} must hold the lines {BEGIN!r} and {END!r}, but does not; add them where the tables belong")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def lines(found: Found) -> Iterator[str]:
    """Everything as Markdown."""
    machine = found["machine"]
    known = {row["name"]: row for row in found["measurements"]}
    done = {name: row["values"] for name, row in known.items() if row["state"] == "done"}
    libraries = ", ".join(
        f"{name} {machine[name]}" for name in ("torch", "triton", "transformers") if machine.get(name)
    )
    memory = f", {machine['memory_gib']} GiB" if "memory_gib" in machine else ""
    yield f"**{machine['device']}**{memory}; {libraries}; sizes: {machine['sizes']}."
    yield from section("Right?", ("what", "passes", "in numbers"), parity_rows(done))
    yield from section("Ratios", ("ratio", "measured", "goal", ""), ratio_rows(done))
    yield from section("Loss layer", ("case", "median, ms", "peak extra, MiB"), time_rows(done))
    yield from section(
        "Training steps", ("case", "tokens/s", "share of its matrix products", "attention"), step_rows(done)
    )
    yield from section("Generation", ("arm", "sequences", "useful tokens/s"), generation_rows(done))
    yield from section("Studies", ("what", "found"), study_rows(done))
    yield from section("Not measured", ("what", "why"), open_rows(known, done))


def section(title: str, columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """A titled table, nothing where it has no row."""
    listed = list(rows)
    if not listed:
        return
    yield f"\n### {title}\n"
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    yield from ("| " + " | ".join(each.replace("|", "\\|") for each in row) + " |" for row in listed)


def parity_rows(done: Found) -> Iterator[tuple[str, ...]]:
    for name, values in done.items():
        if "passes" in values:
            yield name, "yes" if values["passes"] else "**no**", in_numbers(values)
    for name, waits in done.get("b-waits", {}).get("waits", {}).items():
        yield f"{name}: the host waits for the GPU", "**no**" if waits else "yes", str(waits).lower()


def in_numbers(values: Found) -> str:
    if "worst" in values:
        return f"worst error: kernel {values['worst']['kernel']:.1e}, torch {values['worst']['torch']:.1e}"
    if "presets" in values:
        sides = [side for row in values["presets"].values() for side in row.values()]
        cosine = min(min(side["cosine_hidden"], side["cosine_weight"]) for side in sides)
        off = f"; off: {', '.join(values['off'])}" if values["off"] else ""
        loss = max(side["loss"] for side in sides)
        return f"{len(values['presets'])} cases: loss {loss:.1e}, 1 − cosine {1 - cosine:.1e}{off}"
    shown = ("largest_loss_gap", "largest_gap_nats", "equal", "micro_batches", "attempts", "chain")
    return ", ".join(f"{key.replace('_', ' ')} {_short(values[key])}" for key in shown if key in values)


def ratio_rows(done: Found) -> Iterator[tuple[str, ...]]:
    for part, values in done.items():
        for name, row in values.get("ratios", {}).items():
            rule, limit, found = row.get("rule"), row.get("limit"), row["medians"]
            met = "" if rule is None else "met" if (found <= limit if rule == "<=" else found >= limit) else "missed"
            yield f"{name} ({part[2:]})", f"{found:.2f}", "" if rule is None else f"{rule} {limit:g}", met


def time_rows(done: Found) -> Iterator[tuple[str, ...]]:
    for part in ("b-soft", "b-hard", "b-dft", "b-designs", "b-exact"):
        values = done.get(part, {})
        for name, row in values.get("times", {}).items():
            extra = values["peak_extra_bytes"][name]
            yield f"{part[2:]}: {name}", f"{row['median_ms']:.2f}", "" if extra is None else f"{extra / 2**20:.0f}"


def step_rows(done: Found) -> Iterator[tuple[str, ...]]:
    for name, values in done.items():
        if "share_of_products" in values:
            share = f"{100 * values['share_of_products']:.1f} %"
            yield name[2:], f"{values['tokens_per_second']:.0f}", share, values["attention"]
    if "c-optimizer" in done:
        values = done["c-optimizer"]
        seconds = f"{1e3 * values['ours_seconds']:.1f} ms against {1e3 * values['torch_fused_seconds']:.1f} ms"
        yield "update of all weights, against torch's fused AdamW in passes", seconds, "", ""
    if "c-rate" in done:
        yield "one bf16 product", f"{done['c-rate']['product_flops'] / 1e12:.0f} TFLOP/s", "", ""


def generation_rows(done: Found) -> Iterator[tuple[str, ...]]:
    for name, values in done.items():
        for arm, speed in values.get("tokens_per_second", {}).items() if name.startswith("e-speed") else ():
            yield arm, name.rpartition("-")[2], f"{speed:.0f}"
    for arm, equal in done.get("e-equality", {}).get("equal", {}).items():
        yield f"{arm}, equal to generate() in float32", f"{equal} of {done['e-equality']['compared']}", ""


def study_rows(done: Found) -> Iterator[tuple[str, ...]]:
    if "d-quickstart" in done:
        values = done["d-quickstart"]
        what = "quickstart, from end to end" if values["in_one_go"] else "quickstart, the last of several goes"
        found = [f"{each['title']} {each['outcome']}" for each in values["verdict"].get("comparisons", [])]
        yield what, f"{values['seconds']:.0f} s; {'; '.join(found) or 'no verdict'}"
    if "g-two-engines" in done:
        yield "trials by two engines on one GPU, against one", f"{done['g-two-engines']['gain']:.2f} times as fast"


def open_rows(known: Found, done: Found) -> Iterator[tuple[str, ...]]:
    for name, row in known.items():
        if row["state"] != "done":
            yield name, f"{row['state']}: {_short(row['why'])}"
    for name, values in done.items():
        for peer, why in values.get("not_run", {}).items():
            yield f"{name}: {peer}", _short(why)


def _short(value: Any) -> str:
    text = f"{value:.1e}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split())[:160]


if __name__ == "__main__":
    main()
