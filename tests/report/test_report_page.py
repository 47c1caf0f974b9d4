"""The report in a real browser: from its file, silent, equal to the metrics, and usable without a mouse."""

import json
import sys
from pathlib import Path

import pytest
from support.browser import Browser
from support.runs import Row, event, run_folder, sample

from litmoe.report.run_page import write_report

SCRIPT = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
NAME = "run <b>&amp;\"'" if sys.platform != "win32" else "run"
# Everything that a person can operate. Radio buttons of a group count as one, by the browser's rule.
OPERABLE = "a[href], button, select, summary, input, [tabindex='0']"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """The metrics of two runs, by the paths of their folders; texts from outside are scripts."""
    folder = tmp_path_factory.mktemp("runs")

    def uneven(at: int, row: Row) -> None:
        row["load_L1_E0"], row["load_L1_E3"] = 0.0, row["load_L1_E3"] + row["load_L1_E0"]
        row["dead_experts_L1"] = 1

    settings = {"train": {"max_norm": 1.0}, "log": {"run": SCRIPT}}
    return {
        str(folder / NAME): run_folder(
            folder / NAME,
            change=uneven,
            about={"settings": settings, "model": {"name": SCRIPT}, "hardware": {"device": SCRIPT}},
            events=(event(0, "start", "new run"), event(300, "skip", SCRIPT), event(600, SCRIPT, "what")),
            samples=(sample(100, "Once upon a time"), sample(200, SCRIPT)),
        ),
        str(folder / "other"): run_folder(folder / "other", rows=60, layers=3),
    }


@pytest.fixture(scope="module")
def page(rows: dict[str, list[Row]]) -> Path:
    """The report of the first run."""
    return write_report([Path(next(iter(rows)))])


@pytest.fixture(scope="module")
def both(rows: dict[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both."""
    return write_report([Path(folder) for folder in rows], out=tmp_path_factory.mktemp("page") / "both.html")


def test_opens_from_its_file_in_silence(browser: Browser, page: Path, both: Path) -> None:
    for one in (page, both):
        assert one.stat().st_size < 2_000_000
        browser.open(one)
        assert browser.complaints() == []
        assert browser.requests() == [one.absolute().as_uri()]


def test_texts_from_outside_stay_texts(browser: Browser, page: Path, both: Path) -> None:
    for one in (page, both):
        browser.open(one)
        for choice in ("step", "total_tokens"):
            browser.choose("axis", choice)
        assert "owned" not in browser.driver.title and NAME in browser.driver.title
        assert browser.run("document.querySelectorAll('main script, main img, h1 b').length") == 0
        texts = browser.run("[...document.querySelectorAll('blockquote')].map((e) => e.textContent)")
        assert texts[:2] == [SCRIPT, "Once upon a time"]
        body = browser.run("document.body.textContent")
        assert body.count(SCRIPT) >= 5 and browser.complaints() == []


def test_numbers_equal_the_metrics(browser: Browser, page: Path, rows: dict[str, list[Row]]) -> None:
    metrics = next(iter(rows.values()))
    browser.open(page)
    charts = {
        "loss/train_loss/0": ("train_loss", 1e6),
        "loss/val_loss/0": ("val_loss", 1e6),
        "bits/val_bits_per_byte/0": ("val_bits_per_byte", 1e6),
        "speed/tokens_per_second/0": ("tokens_per_second", 1e6),
        "grad_norm/grad_norm/0": ("grad_norm", 1e6),
    }
    for name, (column, unit) in charts.items():
        drawn, measured = browser.source(name), [row for row in metrics if column in row]
        assert drawn["y"] == pytest.approx([row[column] for row in measured], rel=1e-5)
        assert drawn["x"] == pytest.approx([row["total_tokens"] / unit for row in measured], rel=1e-5)
        assert drawn["step"] == [row["step"] for row in measured]
    for layer in range(2):
        drawn = browser.source(f"load/{layer}")
        for expert in range(4):
            shown = [s for s, e in zip(drawn["share"], drawn["expert"], strict=True) if e == expert]
            assert shown == pytest.approx([4 * row[f"load_L{layer}_E{expert}"] for row in metrics], rel=1e-3)
            dead = [level for level, e in zip(drawn["level"], drawn["expert"], strict=True) if e == expert]
            assert (dead == [-99] * len(metrics)) == ((layer, expert) == (1, 0))
    tiles = browser.run(
        "[...document.querySelectorAll('.tiles dd')].map((e) => e.firstChild.textContent.trim())"
    )
    best = min(row["val_loss"] for row in metrics if "val_loss" in row)
    assert f"{best:.4f}" in tiles and f"{metrics[-1]['train_loss']:.4f}" in tiles and "finished" in tiles
    cells = "[...document.querySelectorAll('#chart-loss tbody tr:last-child td')].map((e) => e.textContent)"
    last = metrics[-1]
    assert browser.run(cells) == [
        "1,200",
        f"{1200 * 1024:,}",
        f"{last['train_loss']:.4f}",
        f"{last['val_loss']:.4f}",
    ]


def test_controls_change_what_is_shown(browser: Browser, both: Path, rows: dict[str, list[Row]]) -> None:
    first, second = rows.values()
    browser.open(both)
    assert browser.source("loss/train_loss/1")["x"][-1] == pytest.approx(second[-1]["total_tokens"] / 1e6)
    browser.choose("axis", "time")
    assert browser.source("loss/train_loss/0")["x"] == pytest.approx(
        [row["time"] / 60 for row in first], rel=1e-5
    )
    browser.choose("axis", "step")
    assert browser.source("loss/train_loss/0")["x"] == [row["step"] for row in first]
    browser.choose("part", "half")
    assert browser.source("loss/train_loss/0")["step"] == [row["step"] for row in first if row["step"] >= 600]
    browser.choose("part", "all")
    kinds = "Bokeh.documents.map((d) => d.roots()[0].y_scale.type)"
    assert "LogScale" not in browser.run(kinds)
    browser.choose("scale", "log")
    assert "LogScale" in browser.run(kinds)
    layers = "document.querySelectorAll('#load .plot').length"
    assert browser.run(layers) == 2
    browser.choose("load-run", "1")
    assert browser.run(layers) == 3
    assert browser.run("document.querySelectorAll('section[data-of-run=\"0\"]:not([hidden])').length") == 0
    browser.choose("run", "0")  # hides the first run
    with pytest.raises(AssertionError, match="no chart draws"):
        browser.source("loss/train_loss/0")
    assert browser.source("loss/train_loss/1")["y"]
    assert browser.complaints() == []


def test_light_dark_and_paper(browser: Browser, page: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    drawn = "JSON.stringify(Bokeh.documents[0].roots()[0].background_fill_color)"
    browser.open(page, prefers_color_scheme="light")
    assert browser.run(paper) == "rgb(255, 255, 255)" and "ffffff" in browser.run(drawn)
    browser.open(page, prefers_color_scheme="dark")
    assert browser.run(paper) == "rgb(20, 23, 27)" and "14171b" in browser.run(drawn)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    browser.wait("document.documentElement.dataset.theme === 'light'")
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    browser.wait("document.documentElement.dataset.theme === 'dark'")
    browser.choose("theme", "light")
    assert browser.run(paper) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [320, 700, 1600])
def test_fits_any_width(browser: Browser, both: Path, width: int) -> None:
    browser.open(both, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    widths = browser.run(
        "[...document.querySelectorAll('.plot')].map((e) => e.getBoundingClientRect().width)"
    )
    assert widths and all(200 < one <= width for one in widths)


def test_the_keyboard_reaches_every_control(browser: Browser, both: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(both)
    browser.run(
        "return [...document.querySelectorAll(arguments[0])].forEach((e, i) => { e.dataset.number = i; })",
        OPERABLE,
    )
    script = """return [...document.querySelectorAll(arguments[0])]
        .filter((e) => e.checkVisibility() && !(e.type === "radio" && !e.checked)).map((e) => e.dataset.number)"""
    expected = set(browser.run(script, OPERABLE))
    reached: set[str] = set()
    for _ in range(2 * len(expected)):
        browser.press(Keys.TAB)
        reached.add(browser.run("document.activeElement.dataset.number || ''"))
    assert expected <= reached
    browser.run("document.querySelector(\"input[name='axis']:checked\").focus()")
    browser.press(Keys.ARROW_RIGHT)
    browser.wait('document.documentElement.dataset.drawn.includes(\'"axis":"step"\')')
    browser.run("document.querySelector('summary').focus()")
    browser.press(Keys.ENTER)
    browser.wait("document.querySelector('details').open")


def test_everything_has_a_name(browser: Browser, both: Path) -> None:
    browser.open(both)
    nameless = """return [...document.querySelectorAll("input, select, button, [role]")].filter((e) =>
        !(e.labels && e.labels.length) && !e.getAttribute("aria-label") && !e.textContent.trim()).length"""
    assert browser.run(nameless) == 0
    label = browser.run("document.querySelector('#chart-loss .plot').getAttribute('aria-label')")
    assert label.startswith("Loss. ") and "lowest" in label
    assert (
        json.loads(browser.run("document.getElementById('figures').textContent"))["schema"]
        == "litmoe-report/1"
    )
