"""Many sources in a report: the largest by name, the others together."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from selectmoe_core.report.sections.groups import add_up, largest_groups, regroup


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_groups_keep_their_names(seed):
    rng = random.Random(seed)
    most = rng.randrange(2, 9)
    names = [f"source {number}" for number in range(rng.randrange(1, 20))]
    rng.shuffle(names)
    codes = np.array([rng.randrange(len(names)) for _ in range(200)])
    sizes = Counter(names[code] for code in codes) | Counter(dict.fromkeys(names, 0))
    sizes = {name: sizes[name] for name in names}
    by_size = sorted(names, key=lambda name: (-sizes[name], name))
    named = by_size if len(names) <= most else by_size[: most - 1]
    rest = f"{len(names) - len(named)} other sources"

    moved, labels = regroup(codes, names, most)
    shown = [name if name in named else rest for name in (names[code] for code in codes)]
    assert [labels[code] for code in moved] == shown
    assert len(set(labels)) == len(labels) <= most
    assert add_up(sizes, largest_groups(sizes, most)) == {
        label: sum(
            size for name, size in sizes.items() if (name if name in named else rest) == label
        )
        for label in labels
    }


def test_nothing_to_group():
    assert regroup(np.array([], dtype=np.int64), ()) == (pytest.approx([]), ())
    assert largest_groups({"a": 1}) == {"a": "a"}


def test_a_run_of_many_sources_has_a_short_report(project):
    count = 3000
    lines = []
    for number in range(count):
        answer = {"role": "assistant", "content": "a" * (number % 50 + 1)}
        messages = [{"role": "user", "content": f"q{number}"}, answer]
        lines.append(json.dumps({"dataset": f"s{max(number - 9, 0)}", "messages": messages}))
    (project.folder / "pool.jsonl").write_text("\n".join(lines))
    said = project.run("--until", "select", "score.use=length", "~warmup", "~convert")
    assert said.code == 0, said.err
    (page,) = project.folder.glob("outputs/fake/*/*/report.html")
    text = page.read_text()
    assert len(text) < 400_000
    assert "2,952 other sources" in text
    (found,) = project.folder.glob("outputs/fake/*/*/report.json")
    pool = json.loads(found.read_text())["pool"]
    assert pool["sources"][-1]["examples"] == 2952
    assert sum(source["examples"] for source in pool["sources"]) == pool["examples"] == count
    assert {"name": "s0", "examples": 10}.items() <= pool["sources"][0].items()
