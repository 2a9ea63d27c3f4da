"""The report in a real browser: nothing fetched, no errors, hover and sorting work, hostile text stays text."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from campaign_study import mixed_campaign
from report_study import confirmed
from rich.console import Console
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from qtarget.search.campaign.report import write_reports
from qtarget.search.report.data import gather
from qtarget.search.report.pictures import FILE, designs
from qtarget.search.report.write import write_report
from qtarget.spaces.identity import content_id

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DRIVER and BROWSER), reason="chromium and its driver are not installed"),
]

TOKEN = {
    "text": "<b>7</b>",
    "p": 0.25,
    "gamma": 0.5,
    "q": 0.625,
    "student": [["<b>7</b>", 0.25], ["8", 0.2]],
    "target": [["<b>7</b>", 0.625]],
    "teacher": [["9\x1b[31m", 0.75]],
}
HOSTILE = "<b>7</b>\x1b[31m\n"
STRETCH = {
    "learnt": True,
    "weight": 0.5,
    "critical": False,
    "tokens": [{"id": 1, "text": HOSTILE, "special": False}, {"id": 2, "text": "<|end|>" * 30, "special": True}],
    "left_out": 12,
    "then": [{"id": 3, "text": " z", "special": False}],
}
GIVEN = [{"role": "user", "text": f"{HOSTILE}{'wide' * 40}", "left_out": 0}]
LEARNT = {
    "demonstrations": [
        {
            "place": "line 1 of d.jsonl",
            "given": GIVEN,
            "tokens": 20,
            "labels": 15,
            "segments": [{**STRETCH, "learnt": False, "weight": 0.0}, STRETCH],
            "end": {"id": 2, "text": "<|end|>", "stops": True, "behind": 1},
        }
    ],
    "problem": {
        "task": "sums",
        "given": GIVEN,
        "gold": HOSTILE,
        "tokens": 15,
        "segments": [{**STRETCH, "learnt": False}],
        "ends": ["<|end|>"],
    },
    "differences": [{"kind": "seam", "said": f"a space {HOSTILE}"}],
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with Chrome(options, ChromeService(DRIVER)) as driver:
        yield driver


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, browser: Chrome) -> Chrome:
    """A confirmed study's report, opened; its demonstration is written by hand."""
    folder = confirmed(tmp_path_factory.mktemp("browser")).study_folder
    described = {title: spec.model_dump(mode="json") for title, spec in designs(gather(folder)).items()}
    shown = [{"number": 0, "prompt": "3+4", "stages": {"before": [TOKEN, {**TOKEN, "gamma": 0.1}]}}]
    kept = {"demonstrations": shown, "learnt": LEARNT}
    (folder / FILE.format(content_id(described)[:8])).write_text(json.dumps(kept))
    files = write_report(folder, Console(file=io.StringIO()))
    browser.get(Path(files["html"]).as_uri())
    return browser


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = mixed_campaign(tmp_path_factory.mktemp("campaign"))
    return Path(write_reports([path], Console(file=io.StringIO()), compute=False)["html"])


def requests(browser: Chrome) -> list[str]:
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


def test_the_page_opens_without_errors_or_requests(page: Chrome) -> None:
    assert page.get_log("browser") == []
    assert [url.split("/")[-1] for url in requests(page)] == ["report.html"]
    assert not page.execute_script("return document.querySelectorAll('pre script, td script, img').length")
    assert "<script>alert(1)</script>␛[31mred" in page.find_element(By.ID, "answers").text


def test_pointing_at_a_token_shows_the_alternatives(page: Chrome) -> None:
    tokens = page.find_elements(By.CLASS_NAME, "token")
    assert [token.text for token in tokens] == ["<b>7</b>"] * 2
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", tokens[1])
    ActionChains(page).move_to_element(tokens[1]).perform()
    shown = page.find_element(By.CLASS_NAME, "inspector").text
    assert "observed: p 25.0 %, trust γ 0.100, the target gives it 62.5 %" in shown
    assert "teacher" in shown and "9␛[31m" in shown and "75.0 %" in shown
    assert page.execute_script("return document.querySelector('.inspector b')") is None
    page.execute_script("arguments[0].focus()", tokens[0])
    assert "trust γ 0.500" in page.find_element(By.CLASS_NAME, "inspector").text


def test_what_is_learnt_is_shown_beside_what_is_asked(page: Chrome) -> None:
    section = page.find_element(By.ID, "learnt")
    assert "Training and scoring differ" in section.text and "a space <b>7</b>␛[31m" in section.text
    assert not section.find_elements(By.TAG_NAME, "b"), "hostile text stays text"
    learnt = section.find_element(By.CSS_SELECTOR, ".loss")
    assert learnt.text.startswith("<b>7</b>␛[31m⏎") and learnt.text.endswith("… 12 tokens more … z")
    assert [each.text for each in section.find_elements(By.CSS_SELECTOR, ".stage > span:first-child")] == [
        "given: user", "no loss", "loss × 0.5", "end", "given: user", "prompt", "right", "end",
    ]  # fmt: skip
    special = learnt.find_element(By.CSS_SELECTOR, ".special")
    colours = {
        each.value_of_css_property("background-color") for each in (special, learnt.find_element(By.CLASS_NAME, "tok"))
    }
    assert len(colours) == 2


def column(page: Chrome, table: Any, index: int) -> list[str]:
    return [
        row.find_elements(By.TAG_NAME, "td")[index].text for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
    ]


def test_every_column_of_the_trials_sorts_both_ways(page: Chrome) -> None:
    table = page.find_element(By.CSS_SELECTOR, "#trials table")
    heads = table.find_elements(By.CSS_SELECTOR, "th button")
    assert column(page, table, 0) == ["0", "1", "2", "3"]
    page.execute_script("arguments[0].click()", heads[3])
    assert column(page, table, 0) == ["2", "3", "0", "1"], "best score first"
    page.execute_script("arguments[0].click()", heads[3])
    assert column(page, table, 0) == ["1", "0", "3", "2"]
    page.execute_script("arguments[0].click()", heads[4])
    assert column(page, table, 0)[-1] == "0", "plain SFT has no difference to itself: last"
    page.execute_script("arguments[0].click()", heads[0])
    assert column(page, table, 0) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_text_stands_out(page: Chrome, width: int, scheme: str) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    sticks_out = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    assert page.execute_script(sticks_out) == 0
    ink, paper = page.execute_script(
        "const style = getComputedStyle(document.body);"
        "return [style.color, style.backgroundColor].map((each) => each.match(/\\d+/g).slice(0, 3).map(Number))"
    )
    assert (sum(ink) < sum(paper)) == (scheme == "light")
    assert contrast(ink, paper) > 7, "WCAG 2.2, level AAA"


def test_paper_is_white_also_from_a_dark_screen(page: Chrome) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    paper = "return getComputedStyle(document.documentElement).getPropertyValue('--paper')"
    assert page.execute_script(paper) == "#fcfcfa"
    hidden = "return getComputedStyle(document.querySelector('.inspector')).display"
    assert page.execute_script(hidden) == "none"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


@pytest.mark.parametrize("width", [1280, 390])
def test_a_campaign_opens_without_errors_and_its_pages_link_both_ways(
    campaign: Path, browser: Chrome, width: int
) -> None:
    browser.get_log("browser"), browser.get_log("performance")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(campaign.as_uri())
    sticks_out = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    assert browser.execute_script(sticks_out) == 0
    link = browser.find_element(By.LINK_TEXT, "done")
    browser.execute_script("arguments[0].click()", link)
    assert browser.title == "words.done: qtarget report" and browser.execute_script(sticks_out) == 0
    browser.execute_script("arguments[0].click()", browser.find_element(By.CSS_SELECTOR, ".up a"))
    assert browser.title == "words: qtarget campaign report"
    table = browser.find_element(By.CSS_SELECTOR, "#pairs table")
    heads = table.find_elements(By.CSS_SELECTOR, "th button")
    browser.execute_script("arguments[0].click()", heads[5])
    trials = column(browser, table, 5)
    assert trials[-1] == "0 of 4" and trials[0] == "4 of 4", "most trials first"
    assert browser.get_log("browser") == []
    pages = [url.split("/")[-1] for url in requests(browser)]
    assert pages == ["index.html", "words.done.html", "index.html"], "no other request"


def contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio of two sRGB colours (WCAG 2.2)."""

    def luminance(color: list[int]) -> float:
        parts = [each / 255 for each in color]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
