"""The executor ``ray`` on clusters of this machine: the same bytes, whatever dies meanwhile."""

import json
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from clusters import Desk, Nodes, cluster_of, site_on_path
from conftest import HERE, rows_of, write_plugin, write_rows
from waiting import PATIENCE, wait_for

from selectmoe_core import Site
from selectmoe_core.testing import check_executor, check_plugin

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

ROWS = 120
RECIPE = """\
format = 1
name = "fake"
seed = 7

[pool]
use = "jsonl"
path = "pool.jsonl"

[score]
use = "marked"
shard_examples = 4

[select]
use = "top-fraction"
fraction = 0.25
"""
RAY = ("--executor", "ray", "--threads", "1")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of plugins, and the variables that name it and what goes wrong."""
    folder = tmp_path_factory.mktemp("cluster")
    site, control = folder / "site", folder / "control"
    control.mkdir()
    for name, helper in (("cluster", "cluster_fakes"), ("fake", "fake_chain")):
        text = (HERE / "helpers" / f"{helper}.py").read_text(encoding="utf-8")
        write_plugin(site, name, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", site_on_path(site))
        patch.setenv("CLUSTER_FAKES", str(control))
        patch.setenv("FAKE_CHAIN", str(control))
        yield control


@pytest.fixture(scope="module")
def nodes(site):
    """Three nodes of one core, as variables of ``site`` say."""
    with cluster_of(3) as nodes:
        yield nodes


@pytest.fixture
def desk(tmp_path: Path, site: Path) -> Desk:
    for path in site.iterdir():
        if path.is_file():
            path.unlink()
    desk = Desk(tmp_path, site)
    desk.forget()
    write_rows(tmp_path / "pool.jsonl", rows_of(ROWS))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return desk


@pytest.fixture
def expected(desk: Desk) -> bytes:
    """What one process on this host selects."""
    code, said = desk.run("--outputs", "here")
    assert code == 0, said
    desk.forget()
    return desk.selected("here")


def test_the_plugin_loads():
    check_plugin("selectmoe_ray.plugin")


def test_the_same_bytes_as_one_process_on_three_nodes(desk: Desk, nodes: Nodes, expected: bytes):
    code, said = desk.run(*RAY, "--ray-address", nodes.address)
    assert code == 0, said
    assert desk.selected() == expected
    assert sorted(number for number, _, _ in desk.begun()) == list(range(30))
    assert len({process for _, process, _ in desk.begun()}) > 1
    (log,) = desk.folder.glob("outputs/fake/*/*/run.log")
    made = re.findall(r"\[score\] .* (\d+) examples scored in", log.read_text())
    assert sum(map(int, made)) == ROWS  # each actor reports how many it made
    assert {number: path.read_bytes() for number, path in desk.parts().items()} == {
        number: path.read_bytes() for number, path in desk.parts("here").items()
    }
    # The other executor takes what this one made.
    desk.forget()
    code, said = desk.run("--executor", "local")
    assert code == 0, said
    assert not desk.begun()


def test_vectors_are_a_map_too(desk: Desk, nodes: Nodes):
    recipe = RECIPE.replace("marked", "fake-near").replace(
        "[score]", '[embed]\nuse = "fake-child-embed"\nshard_examples = 8\n\n[score]'
    )
    recipe = recipe.replace("shard_examples = 4", "targets = false\nshard_examples = 16")
    (desk.folder / "recipe.toml").write_text(recipe)
    code, said = desk.run(*RAY, "--ray-address", nodes.address)
    assert code == 0, said
    code, said = desk.run("--outputs", "here", "--threads", "1")
    assert code == 0, said
    assert desk.selected() == desk.selected("here")
    desk.tell("fail-embed-2")
    code, said = desk.run(
        *RAY, "--ray-address", nodes.address, "--fresh", "embed", "executor.skip_failed_shards=true"
    )
    assert code == 1
    assert "1 shard of 8 examples could not be embedded: rows 16 to 23" in said
    assert "every example needs its place here" in said


def test_a_shard_that_fails_or_kills_fails_alone(desk: Desk, nodes: Nodes, expected: bytes):
    desk.tell("raise-3")
    desk.tell("kill-17")
    where = (*RAY, "--ray-address", nodes.address, "executor.attempts=2")
    code, said = desk.run(*where)
    assert code == 1, said
    assert "2 shards of 8 examples could not be scored: rows 12 to 15" in said
    assert "pool.jsonl:13 to" in said
    assert "told to fail at 3" in said
    assert "rows 68 to 71" in said
    assert "its process died" in said
    assert sorted(desk.parts()) == [number for number in range(30) if number not in (3, 17)]
    tries = [number for number, _, _ in desk.begun()]
    assert tries.count(3) == 2
    assert tries.count(17) == 3  # the first death blames nobody
    assert not [number for number in (0, 1, 29) if tries.count(number) > 3]
    desk.forget()
    code, said = desk.run(*where, "executor.skip_failed_shards=true", "score.max_skipped=0.2")
    assert code == 0, said
    assert "8 examples were left out: its shard could not be scored" in said
    rows = [json.loads(line) for line in desk.selected().splitlines()]
    places = {int(row["meta"]["where"].rpartition(":")[2]) for row in rows}
    assert len(rows) == 30
    assert not places & {*range(13, 17), *range(69, 73)}
    desk.untell("raise-3")
    desk.untell("kill-17")
    code, said = desk.run(*where, "--fresh", "score")
    assert code == 0, said
    assert desk.selected() == expected


def test_a_run_that_was_killed_goes_on(desk: Desk, nodes: Nodes, expected: bytes):
    desk.tell("slow", "0.4")
    process = desk.start(*RAY, "--ray-address", nodes.address)
    wait_for(lambda: len(desk.parts()) >= 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not _alive(desk))
    kept = set(desk.parts())
    assert 4 <= len(kept) < 30
    desk.untell("slow")
    desk.forget()
    code, said = desk.run(*RAY, "--ray-address", nodes.address)
    assert code == 0, said
    assert desk.selected() == expected
    assert {number for number, _, _ in desk.begun()} == set(range(30)) - kept


def test_an_interrupt_ends_the_actors(desk: Desk, nodes: Nodes):
    desk.tell("slow", "0.4")
    process = desk.start(*RAY, "--ray-address", nodes.address)
    wait_for(lambda: len(desk.parts()) >= 2)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    wait_for(lambda: not _alive(desk))


def _alive(desk: Desk) -> list[int]:
    """Return the actors that still run."""
    return [pid for pid in {pid for _, pid, _ in desk.begun()} if Path(f"/proc/{pid}").exists()]


def test_a_part_that_cannot_be_opened_ends_the_stage(desk: Desk, nodes: Nodes):
    desk.tell("no-open")
    code, said = desk.run(*RAY, "--ray-address", nodes.address, "executor.attempts=2")
    assert code == 1
    assert "no actor could open: [score] marked: open() failed: RuntimeError" in said


def test_room_that_never_comes_is_an_error(desk: Desk, nodes: Nodes):
    options = ("executor.cpus_per_actor=64", "executor.start_seconds=3")
    code, said = desk.run(*RAY, "--ray-address", nodes.address, *options)
    assert code == 1
    assert "the cluster has had no room for 1 processes of 64 cores" in said


def test_a_cluster_that_is_not_there_is_an_error(desk: Desk):
    code, said = desk.run(*RAY, "--ray-address", "127.0.0.1:1")
    assert code == 1
    assert "cannot connect to the Ray cluster 127.0.0.1:1" in said
    assert "Traceback" not in said


def test_ray_passes_the_kit(tmp_path: Path, nodes: Nodes):
    from selectmoe_ray.plugin import selectmoe_executors

    (component,) = selectmoe_executors()
    options = {"address": nodes.address, "gang_workers": 2, "cpus_per_actor": 1}
    site = Site("cpu", 1, lambda _: None)
    check_executor(component, options=options, site=site, folder=tmp_path)


def test_nodes_come_and_go_while_shards_are_made(desk: Desk, site: Path, expected: bytes):
    with cluster_of(2) as nodes:
        desk.tell("slow", "0.4")
        process = desk.start(*RAY, "--ray-address", nodes.address, "executor.attempts=1")
        wait_for(lambda: len({pid for _, pid, _ in desk.begun()}) == 2)
        nodes.remove()
        wait_for(lambda: len(desk.parts()) >= 8)
        nodes.add()
        nodes.remove()  # the old one: those that the new node makes are all that remain
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert desk.selected() == expected
    assert not desk.made_twice()
    log = "".join(path.read_text() for path in desk.folder.glob("outputs/fake/*/*/run.log"))
    # One for each node that went, unless all was made before the second one did.
    assert 1 <= len(re.findall(r"lost an? (node|actor)", log)) <= 2


@pytest.mark.slow
def test_a_fifth_of_the_actors_is_killed_at_random_moments(desk: Desk, site: Path, expected: bytes):
    """Ten actors at a time, each of the five seeds kills two of them."""
    with cluster_of(5, cpus=2) as nodes:
        for seed in range(5):
            desk.forget()
            desk.tell("slow", "0.3")
            outputs = f"seed-{seed}"
            where = (*RAY, "--ray-address", nodes.address, "--outputs", outputs)
            process = desk.start(*where, "executor.attempts=4")
            killer = threading.Thread(target=_kill, args=(desk, random.Random(seed), 2, outputs))
            killer.start()
            said, _ = process.communicate(timeout=PATIENCE)
            killer.join()
            assert process.returncode == 0, said
            assert desk.selected(outputs) == expected
            assert not desk.made_twice(outputs)
            (log,) = desk.folder.glob(f"{outputs}/fake/*/*/run.log")
            assert log.read_text().count("lost an actor") == 2


def _kill(desk: Desk, rng: random.Random, count: int, outputs: str) -> None:
    """Kill actors at random moments while shards are missing."""
    killed: set[int] = set()
    wait_for(lambda: len({pid for _, pid, _ in desk.begun()}) >= 3)
    while len(killed) < count:
        time.sleep(rng.random())
        alive = sorted(set(_alive(desk)) - killed)
        if alive:
            victim = rng.choice(alive)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
