"""The routing explorer in a real browser: silent, equal to its JSON, and usable without a mouse."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser

from litmoe.report.routing.explore import Effort, explore
from litmoe.report.routing.page import write_routing

PROMPT = "Once upon a time <script>document.title = 'owned'</script>\n\nTom said: \"No & <b>yes</b>\"."


_CELLS_OF_ROWS = """
    const rows = [...document.querySelectorAll(arguments[0])];
    return rows.map((row) => [...row.cells].map((cell) => cell.textContent));
"""
_LEAST_CONTRAST = """
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (css) => {
        const [r, g, b] = css.match(/[\\d.]+/g).map((part) => linear(part / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = getComputedStyle(document.body).backgroundColor;
    return Math.min(...[...document.querySelectorAll("#text .t, .heat td")].map((element) => {
        const {color, backgroundColor} = getComputedStyle(element);
        const below = backgroundColor === "rgba(0, 0, 0, 0)" ? paper : backgroundColor;
        const [less, more] = [light(color), light(below)].sort((a, b) => a - b);
        return (more + 0.05) / (less + 0.05);
    }));
"""


@pytest.fixture(scope="module")
def page(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explorer's page of the trained small model, on a text with HTML in it."""
    out = tmp_path_factory.mktemp("routing") / "routing.html"
    effort = Effort(max_tokens=3000, shuffles=8, knockout_windows=4)
    figures = explore([trained, trained], prompt=PROMPT, effort=effort, accelerator="cpu")
    write_routing(figures, out, out.with_suffix(".json"))
    return out


@pytest.fixture(scope="module")
def figures(page: Path) -> dict[str, Any]:
    """The JSON beside it."""
    found: dict[str, Any] = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    return found


def _colours(browser: Browser) -> list[str]:
    return list(browser.run("[...document.querySelectorAll('#text .t')].map((e) => e.style.background)"))


def test_opens_from_its_file_in_silence(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert page.stat().st_size < 2_000_000
    assert browser.complaints() == [] and browser.requests() == [page.absolute().as_uri()]
    assert browser.driver.title.startswith("Routing of ")
    assert browser.run("document.querySelectorAll('main script, #text b').length") == 0
    shown = "[...document.querySelectorAll('#text .t')].map((e) => e.textContent).join('')"
    assert browser.run(shown).replace("⏎", "") == PROMPT


def test_numbers_equal_the_json(browser: Browser, page: Path, figures: dict[str, Any]) -> None:
    browser.open(page)
    for at, layer in enumerate(figures["layers"]):
        browser.choose("layer", str(at))
        rows = browser.run(_CELLS_OF_ROWS, "#expert-table tbody tr")
        for row, expert in zip(rows, layer["experts"], strict=True):
            assert row[1] == f"{100 * expert['load']:.1f} %" and row[2] == f"{100 * expert['first']:.1f} %"
            rise = [float(number) for number in re.findall(r"-?\d+\.\d+", row[3])]
            knockout = expert["without"]
            assert rise == pytest.approx([knockout["rise"], knockout["low"], knockout["high"]], abs=6e-5)
        labels = browser.run("[...document.querySelectorAll('#text .t')].map((e) => e.dataset.label)")
        firsts, weights = figures["shown"]["experts_LKT"][at][0], figures["shown"]["weights_LKT"][at][0]
        assert [int(re.findall(r"\d+", label)[0]) for label in labels] == firsts
        assert [int(re.findall(r"\d+", label)[1]) for label in labels] == [round(100 * w) for w in weights]
        pairs = browser.source("pairs")
        expected = [value for line in layer["pairs"] for value in line if value is not None]
        assert pairs["value"] == pytest.approx(expected)
        rows = browser.run(_CELLS_OF_ROWS, "#shares tbody tr")
        shown = [int(cell.split()[0]) for row in rows for cell in row[2:]]
        shares = [100 * share for table in layer["shares"].values() for row in table for share in row]
        assert shown == pytest.approx(shares, abs=0.51)


def test_controls_change_what_is_shown(browser: Browser, page: Path, figures: dict[str, Any]) -> None:
    browser.open(page)
    seen = [_colours(browser)]
    for name, value in (("layer", "1"), ("choice", "1"), ("colour", "loss"), ("theme", "dark")):
        browser.choose(name, value)
        seen.append(_colours(browser))
        assert seen[-1] != seen[-2], name
    browser.choose("colour", "expert")
    browser.run("document.querySelectorAll('#legend button')[2].click()")
    off = browser.run("[...document.querySelectorAll('#text .t')].map((e) => e.classList.contains('off'))")
    chosen = zip(*figures["shown"]["experts_LKT"][1], strict=True)
    assert off == [2 not in experts for experts in chosen]
    browser.run("document.querySelectorAll('#legend button')[2].click()")
    assert browser.run("document.querySelectorAll('#text .off').length") == 0
    browser.run("document.querySelector('.tokens button').click()")
    assert browser.run("document.getElementById('context').textContent").startswith("Expert ")
    assert browser.complaints() == []


def test_the_keyboard_reaches_every_control(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    operable = "a[href], button, select, summary, input, [tabindex='0']"
    browser.run(
        "document.querySelectorAll(arguments[0]).forEach((e, i) => { e.dataset.number = i; })", operable
    )
    script = """return [...document.querySelectorAll(arguments[0])]
        .filter((e) => e.checkVisibility() && !(e.type === "radio" && !e.checked)).map((e) => e.dataset.number)"""
    expected, reached = set(browser.run(script, operable)), set()
    for _ in range(2 * len(expected)):
        browser.press(Keys.TAB)
        reached.add(browser.run("document.activeElement.dataset.number || ''"))
    assert expected <= reached
    browser.run("document.querySelector('#text .t').focus()")
    last = browser.run("document.querySelectorAll('#text .t').length - 1")
    moves = (
        (Keys.ARROW_RIGHT, 1),
        (Keys.ARROW_DOWN, 11),
        (Keys.ARROW_LEFT, 10),
        (Keys.HOME, 0),
        (Keys.END, last),
    )
    for key, at in moves:
        browser.press(key)
        assert int(browser.run("document.activeElement.dataset.i")) == at
    assert "First choice by layer: 0:" in browser.run("document.getElementById('detail').textContent")


@pytest.mark.parametrize("width", [320, 1400])
def test_fits_any_width(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width, prefers_color_scheme="dark")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"


def test_text_on_colours_can_be_read(browser: Browser, page: Path) -> None:
    """Contrast of at least 4.5 between every token and its colour (WCAG AA)."""
    for scheme in ("light", "dark"):
        browser.open(page, prefers_color_scheme=scheme)
        assert browser.run(_LEAST_CONTRAST) >= 4.5
        browser.choose("colour", "loss")
        assert browser.run(_LEAST_CONTRAST) >= 4.5
