"""The report: what it says is what the files say; hostile text stays text; gaps are said, not hidden."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_study import HOSTILE, PROBLEMS, SCORES, confirmed, searched, write_answers
from rich.console import Console
from small_study import small_config

from qtarget.search.report.data import gather
from qtarget.search.report.page import cell, policy, render, visible, worded
from qtarget.search.report.write import describe, write_report
from qtarget.search.study.config_file import find_study, parse_study, write_folder
from qtarget.spaces.errors import UserError


class Page(HTMLParser):
    """Elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts = "", [""]
        self._within: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._within = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:
        self._within = None

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts.append(data)
        elif self._within is None:
            self.text += data


def report(path: Path, out: Path | None = None) -> tuple[Page, str]:
    """The page and the Markdown of a study, without loading models."""
    files = write_report(path, Console(file=io.StringIO()), out=out, compute=False)
    return Page(Path(files["html"]).read_text("utf-8")), Path(files["markdown"]).read_text("utf-8")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return confirmed(tmp_path_factory.mktemp("confirmed")).study_folder


@pytest.fixture(scope="module")
def page(study: Path) -> tuple[Page, str]:
    return report(study)


@pytest.mark.slow
def test_the_verdict_comes_first_with_its_interval(study: Path, page: tuple[Page, str]) -> None:
    verdict = json.loads(next(study.glob("confirmation-*/confirmation.json")).read_text())
    shown = next(each for each in verdict["comparisons"] if each["title"] == verdict["winner"])
    effect, low, high = (f"{100 * shown[name]:+.1f}" for name in ("effect", "low", "high"))
    sentence = (
        f"Better than plain SFT: {effect} points [{low}, {high}] on 16 untouched problems, over 3 fresh training seeds."
    )
    html, markdown = page
    assert ("p", {"class": "verdict better"}) in html.elements
    assert sentence in html.text and html.text.index(sentence) < html.text.index("Against plain SFT")
    assert sentence.replace("[", "\\[").replace("]", "\\]") in markdown.split("##")[0]


def test_every_trial_is_there_with_its_score_and_paired_difference(page: tuple[Page, str]) -> None:
    html, markdown = page
    targets = {attributes.get("id") for _, attributes in html.elements}
    for number, score in SCORES.items():
        assert f"trial-{number}" in targets
        assert f"{score:.3f}" in html.text
        row = next(line for line in markdown.splitlines() if line.startswith(f"| {number} |"))
        assert f"| {score:.3f} ± 0.010 |" in row
        expected = "" if number == "0" else f"{100 * (score - SCORES['0']):+.1f}"
        assert row.split("|")[5].strip() == expected


def test_gained_and_lost_are_counted_on_common_problems(page: tuple[Page, str]) -> None:
    _, markdown = page
    rows = [line.split("|") for line in markdown.splitlines() if re.match(r"\| (dft|sft) ", line)]
    dft = next(row for row in rows if row[1].strip() == "dft" and len(row) > 8)
    assert [each.strip() for each in dft[6:8]] == ["0", "2"], "2 of 16 instead of 4 of 16, the same ones first"


def test_hostile_text_is_shown_as_text(page: tuple[Page, str]) -> None:
    html, markdown = page
    assert [tag for tag, _ in html.elements].count("script") == 1, "ours"
    assert not [tag for tag, _ in html.elements if tag == "img"]
    assert not [name for _, attributes in html.elements for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>␛[31mred␛[0m ⟨U+202E⟩gnp.exe" in html.text
    assert "{{ 7*7 }}" in html.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html.text + markdown)
    assert "<script" not in markdown


def test_nothing_is_fetched_and_only_our_script_may_run(page: tuple[Page, str]) -> None:
    html, _ = page
    for tag, attributes in html.elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            link = attributes.get(name)
            assert link is None or link.startswith(("#", "data:")), f"{tag} {name}={link}"
    rules = next(attributes["content"] for _, attributes in html.elements if "http-equiv" in attributes)
    assert rules is not None and rules.startswith("default-src 'none'")
    digest = base64.b64encode(hashlib.sha256(html.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in rules
    assert policy("other") != rules


def test_pictures_have_no_colour_of_their_own(page: tuple[Page, str], study: Path) -> None:
    html, _ = page
    plots = [attributes for tag, attributes in html.elements if tag == "svg"]
    assert len(plots) >= 3 and all(plot["aria-label"] for plot in plots)
    text = (study / "report.html").read_text("utf-8")
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--accent)" in drawn
    assert not re.search(r"(fill|stroke): #0\d0f0e", drawn) and "currentColor" not in drawn


@pytest.mark.slow
def test_a_copied_folder_needs_no_old_path(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "laptop" / "small"
    shutil.copytree(study, copy)
    (copy / "report.html").unlink()
    data = gather(copy)
    assert {record.folder.parent for record in data.records} == {copy / "trials"}
    assert find_study(copy).study_folder == copy
    html, _ = report(copy, tmp_path / "elsewhere.html")
    assert "Better than plain SFT" in html.text and not (copy / "report.html").exists()


@pytest.mark.slow
def test_an_unconfirmed_study_does_not_claim_a_winner(tmp_path: Path) -> None:
    config = searched(tmp_path, baselines=["dft"])
    html, markdown = report(config.study_folder)
    assert "there is nothing to compare it with" in html.text
    assert "The winner has not been confirmed" in html.text and "has not been confirmed" in markdown
    assert "Plain SFT has no score" in html.text


def test_slices_are_those_of_the_confirmation(page: tuple[Page, str]) -> None:
    _, markdown = page
    rows = [line for line in markdown.splitlines() if line.startswith("| task: ")]
    assert [row.split("|")[1].strip() for row in rows] == ["task: even", "task: odd"]
    assert all(int(row.split("|")[2]) == PROBLEMS // 2 for row in rows)


@pytest.mark.slow
def test_costs_are_engine_hours_times_their_price(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "priced.html"
    write_report(study, Console(file=io.StringIO()), out=out, compute=False, price=3600.0)
    data = gather(study)
    assert data.confirmation is not None
    records = [*data.records, *data.confirmation.records]
    seconds = sum(record.seconds or 0.0 for record in records if record.same_as is None)
    assert f"At 3600 an engine hour the study cost {seconds:.2f}." in out.with_suffix(".md").read_text()
    assert f"the study cost {seconds:.2f}." in Page(out.read_text("utf-8")).text


@pytest.mark.slow
def test_accuracy_and_retention_have_a_front(study: Path) -> None:
    found = gather(study)
    assert describe(found, {}, "study")["retention"] is None
    forgotten = {0: 0.2, 1: 0.1, 2: 0.3, 3: 0.4}  # trial 3 scores less than trial 2 and forgets more
    kept = {"name": "text", "unit": "nats", "forgotten_standard_error": 0.01}
    records = [replace(each, retention={**kept, "forgotten": forgotten[each.number]}) for each in found.records]
    page = {**describe(replace(found, records=tuple(records)), {}, "study"), "price": None}
    assert {row.record.number: row.unbeaten for row in page["retention"]["rows"]} == {
        0: True,
        1: True,
        2: True,
        3: False,
    }
    assert "trial 3, complete: forgotten (text) 0.4 nats, score 0.500" in page["plots"]["pareto"]
    markdown = render("markdown", page)
    assert "| 2 | 0.750 | 0.3 ± 0.01 nats | yes |" in markdown and "| 3 | 0.500 | 0.4 ± 0.01 nats |  |" in markdown
    assert "Accuracy and retention." in Page(render("html", page)).text


def torn_result(folder: Path) -> None:
    (folder / "trials" / "0002" / "result.json").write_text('{"score": 0.7')


def torn_items(folder: Path) -> None:
    with (folder / "trials" / "0002" / "items.jsonl").open("a") as file:
        file.write('{"problem": "search-0')


def no_items(folder: Path) -> None:
    (folder / "trials" / "0002" / "items.jsonl").unlink()


def broken_storage(folder: Path) -> None:
    for file in folder.glob("study.db*"):
        file.unlink()
    (folder / "study.db").write_bytes(b"this is not a database, but it is long enough to look like one" * 40)


def no_storage(folder: Path) -> None:
    for file in folder.glob("study.db*"):
        file.unlink()


def no_settings(folder: Path) -> None:
    (folder / "study.json").unlink()


def torn_settings(folder: Path) -> None:
    (folder / "study.json").write_text('{"study": "small", ')


def torn_verdict(folder: Path) -> None:
    next(folder.glob("confirmation-*/confirmation.json")).write_text("{")


def foreign_verdict(folder: Path) -> None:
    next(folder.glob("confirmation-*/confirmation.json")).write_text('{"comparisons": [{"title": "x"}]}')


def no_spec(folder: Path) -> None:
    no_storage(folder)
    (folder / "trials" / "0003" / "spec.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (torn_result, "trial 2: result.json cannot be read"),
        (torn_items, "trial 2: 1 broken line(s) in items.jsonl, 16 good."),
        (no_items, "trial 2: items.jsonl is missing"),
        (broken_storage, "The study's storage cannot be read"),
        (no_storage, "The study's storage is missing: study.db is not there"),
        (no_settings, "The study's settings are missing"),
        (torn_settings, "small/study.json cannot be read"),
        (torn_verdict, "confirmation.json cannot be read"),
        (foreign_verdict, "it lacks adjusted_p_value"),
        (no_spec, "trial 3: spec.json cannot be read (it must hold a JSON object, but holds a list)"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.slow
def test_what_is_damaged_is_said_and_the_rest_is_shown(
    study: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    copy = tmp_path / "runs" / "small"
    shutil.copytree(study, copy)
    damage(copy)
    html, markdown = report(copy)
    missing = html.text[html.text.index("What is missing") : html.text.index("Against plain SFT and")]
    assert said in missing
    assert "## What is missing" in markdown
    assert "Trial 0: sft" in html.text and "0.250" in html.text


def test_an_empty_study_says_so(tmp_path: Path) -> None:
    config = parse_study(small_config() | {"base": str(tmp_path)})
    write_folder(config)
    html, markdown = report(config.study_folder)
    assert "No trial has been started yet" in html.text and "No trial has finished yet." in markdown
    assert "storage is missing" in html.text


@pytest.mark.slow
def test_a_half_finished_study_shows_what_there_is(tmp_path: Path) -> None:
    config = searched(tmp_path, {"3": ["diverged"], "2": ["kill", "finish"]})
    html, markdown = report(config.study_folder)
    assert "infeasible" in html.text and "diverged: diverged in trial" in html.text
    assert "crash (" in html.text, "why the first attempt ended"
    assert "| 3 | " in markdown and "1 repeated attempts" in markdown


def test_a_path_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a YAML file, but there is none"):
        report(tmp_path / "nothing.yaml")
    with pytest.raises(UserError, match=r"`--out` must be an HTML file, but got .*page\.pdf"):
        report(tmp_path, tmp_path / "page.pdf")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain γ\n\ttext", "plain γ\n\ttext"),
        ("\x1b[2J\x07\x00", "␛[2J␇␀"),
        ("a\u202eb\u200bc", "a⟨U+202E⟩b⟨U+200B⟩c"),
        ("\x7f\x9b", "␡⟨U+009B⟩"),
        ("\ud800", "⟨U+D800⟩"),
    ],
)
def test_what_has_no_shape_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_markdown_cell_is_one_line_of_plain_text() -> None:
    found = cell(HOSTILE + "\n# heading\n| cell | [link](x)")
    assert "\n" not in found and not re.search(r"(?<!\\)[|`*_\[\]#]", found) and "<" not in found
    assert cell("<a> & b") == "&lt;a&gt; &amp; b"


def test_answers_of_two_trials_are_paired_by_problem(tmp_path: Path) -> None:
    from qtarget.search.report.items import paired, read_sheet, side_by_side

    write_answers(tmp_path / "ours.jsonl", 0.75)
    write_answers(tmp_path / "theirs.jsonl", 0.5, problems=12)
    ours, theirs = read_sheet(tmp_path / "ours.jsonl"), read_sheet(tmp_path / "theirs.jsonl")
    found = paired(ours.scores, theirs.scores, "x")
    assert found is not None
    assert (found.problems, found.gained, found.lost, found.equal) == (12, 6, 0, 6)
    assert found.effect == pytest.approx(0.5) and found.low < 0.5 < found.high
    kinds = [pair.kind for pair in side_by_side(ours, theirs, 5)]
    assert kinds == ["gained", "gained", "both right"]
    assert paired(ours.scores, {"other": 1.0}, "x") is None


def test_what_stands_in_backticks_is_code_and_the_rest_is_escaped() -> None:
    assert worded("run `qtarget check <x>` & see ` this") == "run <code>qtarget check &lt;x&gt;</code> &amp; see ` this"
