"""The page of a campaign: every pair is on it as far as it got, and nothing that is missing is passed over."""

from __future__ import annotations

import importlib
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from campaign_study import mixed_campaign, studies, write_campaign
from report_study import confirm, search
from rich.console import Console

from qtarget.search.campaign.pairs import PairData, verdict
from qtarget.search.campaign.report import write_reports
from qtarget.search.report.data import StudyData, gather
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow


def written(paths: list[Path], out: Path | None = None, price: float | None = None) -> tuple[str, str, Path]:
    """Text of the page, Markdown, and the page's place."""
    files = write_reports(paths, Console(file=io.StringIO()), out=out, compute=False, price=price)
    html = Path(files["html"])
    return html.read_text("utf-8"), Path(files["markdown"]).read_text("utf-8"), html


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_campaign(tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module")
def page(campaign: Path) -> tuple[str, str, Path]:
    return written([campaign])


def row(markdown: str, pair: str) -> list[str]:
    found = next(line for line in markdown.splitlines() if re.match(rf"\| \[?{pair}\b", line))
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_the_verdict_says_where_it_holds_and_where_not(page: tuple[str, str, Path]) -> None:
    html, markdown, _ = page
    sentence = (
        "A target better than plain SFT was found and confirmed in 1 of 4 pairs (done); not confirmed yet in halfway, "
        "torn and absent."
    )
    assert sentence in html and html.index(sentence) < html.index("<h2>Pairs")
    assert sentence in markdown.split("##")[0]
    assert "Across these pairs: " in html.split("<h2>Pairs")[0], "what holds of the designs that all have tried"


def test_every_pair_has_a_row_as_far_as_it_got(page: tuple[str, str, Path], campaign: Path) -> None:
    _, markdown, _ = page
    stored = json.loads(
        next(studies(campaign)["done"].study_folder.glob("confirmation-*/confirmation.json")).read_text()
    )
    shown = next(each for each in stored["comparisons"] if each["title"] == stored["winner"])
    done, halfway, torn, absent = (row(markdown, name) for name in ("done", "halfway", "torn", "absent"))
    assert done[0] == "[done](words.done.md)" and done[1] == "confirmed" and done[5] == "better than SFT"
    assert done[3] == f"{100 * shown['effect']:+.1f}"
    assert done[4] == f"{100 * shown['low']:+.1f} to {100 * shown['high']:+.1f}" and done[6] == "4 of 4"
    assert halfway[1] == "half-way" and halfway[2] == "trial 0: sft" and halfway[5:7] == ["not yet", "2 of 4"]
    assert torn[1] == "searched, damaged" and torn[3].endswith("in the search")
    assert absent == ["absent", "never started", "", "", "", "not yet", "0 of 4", "0.0 s"]


def test_what_is_missing_is_said(page: tuple[str, str, Path]) -> None:
    html, markdown, _ = page
    missing = html[html.index("What is missing") : html.index("<nav>")]
    assert "halfway: 2 of 4 trials are still to be run." in missing
    assert "torn: The study&#39;s storage cannot be read" in missing or "torn: The study's storage cannot" in missing
    assert "absent: The pair was never started" in missing
    assert "absent is not compared: it has no complete trial" in missing
    assert "## What is missing" in markdown


def test_failures_of_all_pairs_are_listed_with_their_pair(page: tuple[str, str, Path]) -> None:
    _, markdown, _ = page
    listed = markdown[markdown.index("## Failures") : markdown.index("## Budget")]
    assert re.search(r"- halfway, search, trial 1: 2 attempts \(crash", listed) and "- done" not in listed


def test_pages_link_to_each_other_and_nowhere_else(page: tuple[str, str, Path]) -> None:
    html, _, index = page
    links = set(re.findall(r'href="([^"#][^"]*)"', html)) - {"data:,"}
    assert links == {"words.done.html", "words.halfway.html", "words.torn.html"}
    assert index.parent.name == "words-report" and index.name == "index.html"
    for name in links:
        own = (index.parent / name).read_text("utf-8")
        assert '<a href="index.html">← Campaign words</a>' in own
        assert not re.search(r'(?:src|href)="(?:https?:)?//', own)
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html
    assert "<script>alert" not in html and "<b>" not in re.sub(r"<figcaption><b>", "", html)


def test_the_shared_designs_are_compared(page: tuple[str, str, Path]) -> None:
    html, markdown, _ = page
    assert 'aria-label="Ranks of the shared designs in each pair"' in html
    assert 'aria-label="The winner of each pair against plain SFT"' in html
    table = markdown[markdown.index("## Designs across pairs") : markdown.index("## Failures")]
    assert "| design | done | halfway | torn | mean rank | against SFT |" in table
    assert "| sft |" in table and "| dft |" in table


def test_a_price_is_reckoned_over_all_pairs(campaign: Path, tmp_path: Path) -> None:
    html, markdown, index = written([campaign], tmp_path / "priced.html", price=3600.0)
    seconds = sum(
        record.seconds or 0.0
        for config in studies(campaign).values() if config.study_folder.is_dir()
        for data in (gather(config.study_folder), gather(config.study_folder).confirmation)
        if data is not None
        for record in data.records if record.same_as is None
    )  # fmt: skip
    assert float(re.search(r"<dt>cost</dt><dd>([\d.]+)", html)[1]) == pytest.approx(seconds, abs=0.011)  # type: ignore[index]
    assert "cost |" in markdown and (tmp_path / "words.done.html").is_file() and index.name == "priced.html"


def test_folders_are_a_campaign_too_and_a_damaged_one_is_shown(campaign: Path, tmp_path: Path) -> None:
    pairs = studies(campaign)
    for name in ("done", "halfway"):
        shutil.copytree(pairs[name].study_folder, tmp_path / name)
    (tmp_path / "halfway" / "study.json").write_text("{")
    _, markdown, index = written([tmp_path / "done", tmp_path / "halfway"])
    assert row(markdown, "words.done")[1] == "confirmed" and "damaged" in row(markdown, "halfway")[1]
    assert index.parent.parent == tmp_path
    with pytest.raises(UserError, match="comes twice"):
        written([tmp_path / "done", tmp_path / "done"])
    with pytest.raises(UserError, match="must be an HTML file"):
        written([campaign], tmp_path / "page.pdf")


def test_nothing_started_is_a_page_too(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    html, markdown, _ = written([write_campaign(tmp_path, ("a", "b"), model={"path": hostile})])
    assert hostile not in html and "&lt;script&gt;alert(1)&lt;/script&gt; on a.jsonl" in html
    assert "No trial of any pair has finished yet." in html and "Nothing can be compared yet." in markdown
    assert not (tmp_path / "runs" / "words.a").exists(), "a report starts nothing"


def test_an_unconfirmed_best_may_be_a_published_one(tmp_path: Path) -> None:
    path = write_campaign(tmp_path, ("a", "b"), baselines=["sft", "dft"])
    config = studies(path)["a"]
    search(config, {"scores": {"0": 0.25, "1": 0.75, "2": 0.5, "3": 0.5}})
    _, markdown, _ = written([path])
    assert row(markdown, "a")[2] == "trial 1: dft"
    assert row(markdown, "a")[3] == "+50.0 in the search"


def pair(name: str, outcome: str | None) -> PairData:
    found = None if outcome is None else {"outcome": outcome}
    return PairData(StudyData(Path(name), name, None, verdict=found), name, 4)


@pytest.mark.parametrize(
    ("outcomes", "tone", "said"),
    [
        (("better than SFT", "better than SFT"), "better", "confirmed in both pairs."),
        (("better than SFT", "worse"), "worse", "confirmed in 1 of 2 pairs (a); worse in b."),
        (("not distinguishable from SFT",) * 3, "same", "in none of 3 pairs; not distinguishable in a, b and c."),
        (("better than SFT", None), "open", "in 1 of 2 pairs (a); not confirmed yet in b."),
    ],
)
def test_verdict_sentences(outcomes: tuple[str | None, ...], tone: str, said: str) -> None:
    found = verdict([pair(name, outcome) for name, outcome in zip("abc", outcomes, strict=False)])
    assert found[0] == tone and found[1].endswith(said)


def test_a_confirmed_pair_with_open_trials_says_both(tmp_path: Path) -> None:
    path = write_campaign(tmp_path, ("a", "b"), budget={"trials": 12, "slice": 2})
    config = studies(path)["a"]
    search(config.with_trials(4))
    confirm(config)
    _, markdown, _ = written([path])
    assert row(markdown, "a")[1] == "confirmed, search unfinished" and row(markdown, "a")[6] == "4 of 6"
    assert "a: 2 of 6 trials are still to be run." in markdown


def test_the_page_of_results_has_every_confirmed_pair_and_says_what_still_runs(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    results = importlib.import_module("results")
    stored = json.loads(
        next(studies(campaign)["done"].study_folder.glob("confirmation-*/confirmation.json")).read_text()
    )
    page = tmp_path / "results.md"
    page.write_text("before\n<!-- results -->\nstale row\n<!-- end of results -->\nafter\n")
    readme = tmp_path / "README.md"
    readme.write_text(page.read_text())
    assert results.main([str(campaign), "--docs", str(tmp_path), "--readme", str(readme)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    cells = row(text, "done")
    best = max(stored["comparisons"], key=lambda each: each["effect"])
    assert cells[1] == f"{100 * stored['sft_score']:.1f}"
    assert any(f"{100 * best['score']:.1f}: {100 * best['effect']:+.1f} [" in cell for cell in cells[2:4])
    short = row(readme.read_text(), "done")
    assert short[1] == cells[1] and f"{100 * best['effect']:+.1f} [" in " ".join(short[2:])
    assert "halfway" not in readme.read_text() and readme.read_text().endswith("after\n")
    assert f"* done: {best['title']} is better than SFT" in text
    assert "* halfway: not confirmed yet (half-way, 2 of 4 trials)." in text
    assert "* absent: not confirmed yet (never started, 0 of 4 trials)." in text
    assert not re.search(r"^\| (halfway|torn|absent)", text, re.MULTILINE)
    assert all((tmp_path / name).stat().st_size > 1000 for name in results.PICTURES if f"({name})" in text)
    assert f"({results.PICTURES[0]})" in text
