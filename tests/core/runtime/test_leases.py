"""Leases: one of several owns a name, and what a dead one owned can be taken, once."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from waiting import wait_for

from selectmoe_core.runtime.leases import Leases, Owner, began
from selectmoe_core.runtime.shared_folder import SharedFolder
from selectmoe_core.runtime.writing import create_text

ELSEWHERE = replace(Owner.this(), host="far", machine="another machine", pid=1)


@pytest.fixture
def place(tmp_path):
    return SharedFolder(tmp_path / "claims")


def test_of_two_one_claims(place):
    with Leases(place) as one, Leases(place) as other:
        assert one.claim("a")
        assert not other.claim("a")
        assert other.claim("b")
        assert other.take_over(["a", "b"]) == (None, [str(one.owner)])


def test_what_is_left_is_free_at_once(place):
    with Leases(place) as one:
        one.claim("a")
    with Leases(place) as other, Leases(place) as third:
        assert not other.claim("a")
        assert other.take_over(["a"]) == ("a", [])
        assert third.take_over(["a"])[0] is None


def test_a_dead_process_of_this_machine_is_known_at_once(place):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = replace(Owner.this(), pid=child.pid, began=began(child.pid))
    dead = Leases(place, owner=owner)
    place.open()
    place.write(dead.id, json.dumps(vars(owner)))
    assert dead.claim("a")
    with Leases(place) as alive:
        assert alive.take_over(["a"]) == (None, [str(owner)])
        child.kill()
        assert wait_for(lambda: alive.take_over(["a"])[0]) == "a"
        child.wait()


def test_a_number_that_came_again_is_another_process(place):
    owner = replace(Owner.this(), began="1")
    place.open()
    former = Leases(place, owner=owner)
    place.write(former.id, json.dumps(vars(owner)))
    former.claim("a")
    with Leases(place) as alive:
        assert alive.take_over(["a"]) == ("a", [])


def test_a_process_elsewhere_is_gone_when_its_lease_is_over(place):
    with (
        Leases(place, beat=0.05, lease=0.5, owner=ELSEWHERE) as far,
        Leases(place, lease=0.5) as near,
    ):
        far.claim("a")
        time.sleep(1.0)  # it has shown that it lives meanwhile
        assert near.take_over(["a"]) == (None, [str(ELSEWHERE)])
        far._left.set()
        assert near.take_over(["a"])[0] is None
        assert wait_for(lambda: near.take_over(["a"])[0]) == "a"


def test_of_many_who_take_over_one_succeeds(place):
    with Leases(place) as one:
        for number in range(20):
            one.claim(f"{number}")
    crowd = [Leases(place, owner=replace(ELSEWHERE, machine=f"{number}")) for number in range(8)]

    def take(leases):
        mine = []
        while name := leases.take_over([f"{number}" for number in range(20)])[0]:
            mine.append(name)
        return mine

    for leases in crowd:
        leases.__enter__()
    with ThreadPoolExecutor(8) as threads:
        taken = [name for mine in threads.map(take, crowd) for name in mine]
    for leases in crowd:
        leases.__exit__(None, None, None)
    assert sorted(taken, key=int) == [f"{number}" for number in range(20)]


def test_without_hard_links_one_of_many_still_creates(tmp_path, monkeypatch):
    def refused(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: create_text(tmp_path / "a", f"{n}"), range(8)))
    assert made.count(True) == 1
    assert (tmp_path / "a").read_text() == f"{made.index(True)}"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
