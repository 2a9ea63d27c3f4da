"""What is learnt and what is asked, token by token: what carries a loss, where answers end, what differs.

With colours neighbouring tokens have two shades; without, a bar stands between them. Nothing but ASCII is added where
the terminal knows no more, and nothing is wrapped where nobody's terminal is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.text import Text

from .visible import visible

LABEL = 11
"""Columns of what stands before a line."""
CONTEXT, LOSS = (56, 28), (140, 40)
"""Tokens shown at the beginning and at the end of a stretch without and with a loss."""
STRETCHES = 12
LONGEST = 600
"""Characters of a given text that are shown."""
SHADES = {
    "context": ("dim", "dim"),
    "loss": ("black on green", "black on bright_green"),
    "weighted": ("black on cyan", "black on bright_cyan"),
}
SPECIAL = {"context": "magenta", "loss": "bold black on yellow", "weighted": "bold black on yellow"}


def show_learnt(found: Mapping[str, Any], console: Console) -> None:
    """Print `learnt_and_asked`'s demonstrations, problem and differences."""
    picture = Picture(console)
    for each in found["demonstrations"]:
        picture.show(picture.demonstration(each))
    if found["problem"] is not None:
        picture.show(picture.problem(found["problem"]))
    differences = found["differences"]
    for each in differences:
        said = visible(each["said"])
        console.print(f"{'differs':<{LABEL}}{said}", soft_wrap=True, style="yellow", markup=False)
    if not differences:
        said = "nothing: problems are asked as demonstrations are learnt"
        console.print(f"{'differs':<{LABEL}}{said}", soft_wrap=True, markup=False)


@dataclass(frozen=True)
class Picture:
    """Draws on one console."""

    console: Console

    @cached_property
    def _ascii(self) -> bool:
        return self.console.options.ascii_only

    @cached_property
    def _coloured(self) -> bool:
        return self.console.color_system is not None and not self.console.no_color

    @cached_property
    def _marks(self) -> dict[str, str]:
        known = {"line": "⏎", "tab": "⇥", "bar": "│", "gap": "…", "times": "×"}
        plain = {"line": "\\n", "tab": "\\t", "bar": "|", "gap": "...", "times": "x"}
        return plain if self._ascii else known

    def demonstration(self, found: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
        """Pairs of label and line."""
        place = self._one_line(found["place"] or "a demonstration")
        yield "learnt", Text(f"{place}: {found['tokens']} tokens, {found['labels']} with a loss", "bold")
        yield from self._given(found["given"])
        segments = found["segments"]
        for segment in segments[:STRETCHES]:
            yield from self._stretch(segment)
        if len(segments) > STRETCHES:
            yield "", self._gap(f"{len(segments) - STRETCHES} stretches more")
        yield "  end", Text(self._end(found["end"]))

    def problem(self, found: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
        """Pairs of label and line."""
        task, gold = self._one_line(found["task"]), self._one_line(self._clipped(found["gold"], 0))
        yield "asked", Text(f"a problem of {task}: {found['tokens']} tokens; right is {gold}", "bold")
        yield from self._given(found["given"])
        for segment in found["segments"]:
            yield from self._stretch(segment, "  prompt")
        yield "  end", Text(self._answered(found))

    def _answered(self, found: Mapping[str, Any]) -> str:
        """Where a problem's answer ends, or which options are compared."""
        if options := found.get("options"):
            shown = self._one_line(self._clipped(" or ".join(map(repr, options)), 0))
            return f"nothing is generated: the likelier of {shown} is the answer"
        ends = ", ".join(self._one_line(each) for each in found["ends"])
        return f"generation stops at {ends}" if ends else "no token stops generation"

    def show(self, lines: Iterator[tuple[str, Text]]) -> None:
        """Print labelled lines, folded on a terminal and whole elsewhere."""
        room = max(10, self.console.width - LABEL)
        for label, line in lines:
            parts = line.wrap(self.console, room, overflow="fold") if self.console.is_terminal else [line]
            for number, part in enumerate(parts):
                self.console.print(
                    Text(f"{label if not number else '':<{LABEL}}").append_text(part), soft_wrap=True, highlight=False
                )

    def _given(self, given: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Text]]:
        label = "  given"
        for each in given:
            role, *more = self._clipped(each["text"], each["left_out"]).split("\n")
            for number, line in enumerate((f"{self._one_line(each['role'])}: {role}", *more)):
                yield label, Text(line if not number else f"  {line}")
                label = ""

    def _stretch(self, segment: Mapping[str, Any], label: str | None = None) -> Iterator[tuple[str, Text]]:
        kind = "context" if not segment["learnt"] else "loss" if segment["weight"] == 1 else "weighted"
        head, tail = CONTEXT if kind == "context" else LOSS
        tokens = [*segment["tokens"], *segment["then"]]
        gap, split = segment["left_out"], len(segment["tokens"])
        if len(tokens) > head + tail:
            gap, split = gap + len(tokens) - head - tail, head
            tokens = [*tokens[:head], *tokens[-tail:]]
        line = Text()
        for number, token in enumerate(tokens):
            if gap and number == split:
                line.append_text(self._gap(f"{gap} tokens more"))
            elif line and not self._coloured and not line.plain.endswith("\n"):
                line.append(self._marks["bar"])
            shade = SPECIAL[kind] if token["special"] else SHADES[kind][number % 2]
            line.append(self._shown(token["text"]), f"{shade} underline" if segment["critical"] else shade)
        label = label or self._label(segment, kind)
        for part in _lines(line):
            yield label, part
            label = ""

    def _label(self, segment: Mapping[str, Any], kind: str) -> str:
        if kind == "context":
            return "  no loss"
        weight = "" if kind == "loss" else f" {self._marks['times']}{segment['weight']:.3g}"
        return f"  {'critical' if segment['critical'] else 'loss'}{weight}"

    def _shown(self, text: str) -> str:
        shown = visible(text).replace("\t", self._marks["tab"]).replace("\n", f"{self._marks['line']}\n")
        return shown.encode("ascii", "backslashreplace").decode() if self._ascii else shown

    def _one_line(self, text: str) -> str:
        return self._shown(text).replace("\n", "")

    def _clipped(self, text: str, left_out: int) -> str:
        more = left_out + max(0, len(text) - LONGEST)
        shown = visible(text[:LONGEST]).replace("\t", self._marks["tab"])
        shown = shown.encode("ascii", "backslashreplace").decode() if self._ascii else shown
        return f"{shown} {self._marks['gap']} ({more} characters more)" if more else shown

    def _gap(self, said: str) -> Text:
        return Text(f" {self._marks['gap']} {said} {self._marks['gap']} ", "italic yellow")

    def _end(self, end: Mapping[str, Any] | None) -> str:
        if end is None:
            return "nothing is learnt"
        if not end["stops"]:
            return f"the last token that is learnt, {self._one_line(end['text'])}, does not stop generation"
        behind = f"; {end['behind']} token(s) are learnt behind it" if end["behind"] else ""
        return f"{self._one_line(end['text'])}, where generation stops{behind}"


def _lines(text: Text) -> list[Text]:
    """A text cut at its line feeds, each of which is shown before the cut."""
    return [line for line in text.split("\n", allow_blank=False) if line.plain]
