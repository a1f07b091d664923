"""The page of a comparison in a headless Chromium: screen, phone, paper, escaping, keys."""

from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, browser, browser_path

from selectmoe_core.compare.chosen import overlap
from selectmoe_core.compare.costs import PARTS, ArmCost
from selectmoe_core.compare.findings import MEAN, Contender, find
from selectmoe_core.compare.page import render_page
from selectmoe_core.compare.results import Task
from selectmoe_core.compare.summary import Summary

pytestmark = pytest.mark.skipif(browser_path() is None, reason="there is no Chromium here")

HOSTILE = "<img src=x onerror='window.hacked = 1'>"
LONG = "perplexity-of-a-much-larger-model"
ROLES = ("base", "random", "source-balanced random", "length", "full")
PAPER = 794


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def made_up(strategies=("router", LONG, HOSTILE), tasks=2) -> Summary:
    """Return a comparison whose answers are drawn: the first strategy is far above the others."""
    rng = np.random.default_rng(3)
    arms = [*ROLES, *strategies]
    contenders = [
        Contender(arm, arm if arm in ROLES else "strategy", "" if arm == "random" else "random")
        for arm in arms
    ]
    found = []
    for number in range(tasks):
        ease = rng.random(500)
        answers = {
            arm: np.stack(
                [
                    (ease < 0.5 + 0.2 * (arm == strategies[0]) + rng.normal(0, 0.004)) + 0.0
                    for _ in range(1 if arm == "base" else 3)
                ]
            )
            for arm in arms
        }
        values = {arm: tuple(rows.mean(axis=1).tolist()) for arm, rows in answers.items()}
        found.append(Task(f"task {number}", "acc", 0.25, 500, True, True, values, answers))
    costs = {
        arm: ArmCost(dict.fromkeys(PARTS, 3.0 + place), dict.fromkeys(PARTS, 1e12), 160, 9e4)
        for place, arm in enumerate(arms)
        if arm != "base"
    }
    rows = {
        arm: rng.choice(1600, 160, replace=False) for arm in arms if arm not in ("base", "full")
    }
    recipes = {arm: tuple(f"recipes/x-seed{n}.toml" for n in (1, 2, 3)) for arm in costs}
    return Summary(
        "made up", find(contenders, found), costs, ("a note",), (1, 2, 3),
        "selectmoe compare made-up", "2026-01-02T03:04:05", recipes, overlap(rows, 1600),
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "compare.html"
    path.write_text(render_page(made_up()), "utf-8")
    return path


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, False), (1280, True)])
def test_it_opens_without_an_error_a_request_or_a_part_outside(chrome, page, width, dark):
    chrome.open(page, width=width, dark=dark)
    assert chrome.problems() == []
    assert chrome.run("document.documentElement.scrollWidth") <= width
    assert chrome.run("window.hacked === undefined")
    assert HOSTILE in chrome.run("document.querySelector('#verdict').textContent")


@pytest.mark.parametrize("width", [1280, 400])
def test_no_picture_scrolls(chrome, page, width):
    chrome.open(page, width=width)
    parts = ".dots *, .field *, .key *, caption"
    over = chrome.run(
        f"""[...document.querySelectorAll('{parts}')].filter(e => {{
        const box = e.getBoundingClientRect(); return box.right > {width} || box.left < 0; }})
        .map(e => e.outerHTML.slice(0, 99))"""
    )
    assert over == []
    assert chrome.run("document.querySelectorAll('figure .scroll').length") == 0


def test_pictures_are_in_scale(chrome, page):
    """Dots lie where their numbers say: the distance to zero is in proportion."""
    chrome.open(page)
    places = chrome.run(
        """(() => { const zero = document.querySelector('.dots .chance').getBoundingClientRect();
        return [...document.querySelectorAll('.dots .mark')].map(m => {
        const box = m.querySelector('.dot').getBoundingClientRect();
        return (box.left + box.right) / 2 - zero.left; }); })()"""
    )
    found = made_up().findings.results
    points = [
        one.figures[MEAN].difference.value
        for one in found
        if one.contender.role not in ("base", "random")
    ]
    scale = places[3] / points[3]  # the router, far above the others
    np.testing.assert_allclose(places, np.array(points) * scale, atol=1.5)
    ups = chrome.run(
        """[...document.querySelectorAll('.plane .point')].map(p => {
        const b = p.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2];
        })"""
    )
    scores = [one.figures[MEAN].value for one in found if one.contender.role != "base"]
    slope = (ups[4][1] - ups[0][1]) / (scores[4] - scores[0])
    expected = [ups[0][1] + slope * (score - scores[0]) for score in scores]
    np.testing.assert_allclose([up for _, up in ups], expected, atol=1.5)
    steps = np.diff([across for across, _ in ups])
    np.testing.assert_allclose(steps, steps[0], atol=0.5)  # every arm costs as much more


def test_paper_cuts_no_column(chrome, page, tmp_path):
    chrome.open(page, width=PAPER)
    chrome.call("Emulation.setEmulatedMedia", {"media": "print"})
    over = chrome.run(
        f"""[...document.querySelectorAll('table, pre, .dots, .field')].filter(
        e => e.getBoundingClientRect().right > {PAPER} + 1).map(e => e.outerHTML.slice(0, 99))"""
    )
    assert over == []
    chrome.paper(tmp_path / "paper.pdf")
    assert (tmp_path / "paper.pdf").stat().st_size > 20_000


def test_keys_and_screen_readers(chrome: Browser, page):
    chrome.open(page)
    chrome.press("Tab")
    assert chrome.run("document.activeElement.className") == "skip"
    named = "[...document.querySelectorAll('[role=region], [role=img]')].every(e => e.ariaLabel)"
    assert chrome.run(named)
    assert chrome.run("[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0)")
    assert chrome.run("[...document.querySelectorAll('table')].every(t => t.caption)")
    heads = "[...document.querySelectorAll('th')].every(h => h.scope)"
    assert chrome.run(heads)
