"""The comparison of warm-ups on the nano model: its rows, and what is planted in them."""

import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from nano_arms import EACH, arms, generated, planted

from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry


def test_rows_are_generated_once_and_a_quarter_shows_an_equation():
    rows = generated(200, 5)
    assert len({row.id for row in rows}) == len(rows) == 200
    assert [row.id for row in generated(200, 5)] == [row.id for row in rows]
    sums = [row for row in rows if row.source == "sums"]
    assert len(sums) == 50
    for row in sums:
        a, sign, b, c, again = re.findall(r"\d+|[-+x](?= )", row.response)
        assert {"+": int(a) + int(b), "-": int(a) - int(b), "x": int(a) * int(b)}[sign] == int(c)
        assert again == c


def test_each_kind_stands_beside_the_rows_that_it_could_change():
    rows = generated(120, 6)
    damages = Registry(load_plugins()).damages
    found = planted(rows, damages, 7)
    assert {"wrong_numbers", "wrong_arithmetic", "answer_swap"} <= found.clean.keys()
    assert found.clean.keys() == found.damaged.keys()
    assert found.examples[: len(rows)] == rows
    places = np.concatenate(list(found.damaged.values()))
    assert len(set(places.tolist())) == len(places)
    assert places.min() == len(rows)
    for kind, clean in found.clean.items():
        assert 20 <= len(clean) == len(found.damaged[kind]) <= EACH
        for one, other in zip(clean.tolist(), found.damaged[kind].tolist(), strict=True):
            assert found.examples[one].id != found.examples[other].id
            assert found.examples[one].source == found.examples[other].source
    numbers = found.clean["wrong_numbers"].tolist()
    assert all(any(c.isdigit() for c in rows[place].response) for place in numbers)


def test_arms_have_names_of_their_own():
    names = [arm.name for arm in arms()]
    assert len(set(names)) == len(names) > 8
