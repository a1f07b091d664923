"""Outputs on an object store: what one host makes, another one finds; nothing else is touched."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import LEFT_OUT, rows_of, write_rows
from waiting import wait_for

from selectmoe_core.errors import RecipeError, StageError
from selectmoe_core.remote.cache import address_of, local_outputs, objects_at, store_at
from selectmoe_core.remote.objects import ObjectPlace, Objects
from selectmoe_core.remote.store import DamagedError, RemoteStore
from selectmoe_core.runtime.leases import Leases
from selectmoe_core.store import Artifact

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

BUCKET = "results"
SCORE = (
    "compare.baselines=[]",
    "score.reads_model=false",
    "score.shard_examples=4",
    "--until",
    "select",
)
PATIENCE = 240


@pytest.fixture(scope="session")
def server():
    """A server that speaks S3, in a process of its own; its address."""
    program = (
        "import sys, time\n"
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\n"
        "server.start()\n"
        "print(server.get_host_and_port()[1], flush=True)\n"
        "time.sleep(3600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def s3(server, tmp_path, monkeypatch):
    """An empty bucket but for a file beside the prefix; the client to look into it with."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
    }.items():
        monkeypatch.setenv(name, value)
    host(monkeypatch, tmp_path, "one")
    urlopen(f"{server}/moto-api/reset", data=b"").close()
    objects_at.cache_clear()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="runs-of-others/file", Body=b"untouched")
    yield client
    outside = {key for key in keys(client) if not key.startswith("runs/")}
    assert outside == {"runs-of-others/file"}


def host(monkeypatch, tmp_path, name):
    """From now on this is another host, as far as it keeps files."""
    monkeypatch.setenv("SELECTMOE_CACHE", str(tmp_path / "hosts" / name))


def keys(client):
    found = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {entry["Key"]: entry["ETag"] for entry in found}


def shards(calls):
    return sorted(int(line.split()[1]) for line in calls if re.fullmatch(r"score \d+", line))


def selected(folder):
    [path] = Path(folder).glob("**/store/select-*/selected_data.jsonl")
    return path.read_bytes()


REMOTE = ("--outputs", f"s3://{BUCKET}/runs")


# ------------------------------------------------------------------------------------- whole runs


@pytest.mark.slow
def test_what_one_host_made_another_one_uses(project, s3, tmp_path, monkeypatch):
    write_rows(project.folder / "pool.jsonl", rows_of(60))
    assert project.run(*SCORE, "--outputs", "alone").code == 0
    said = project.run(*SCORE, *REMOTE)
    assert said.code == 0, said.err
    assert f"outputs: s3://{BUCKET}/runs (cache: {tmp_path}/hosts/one/" in said.err
    names = {re.sub("-[0-9a-f]{12}/", "/", key) for key in keys(s3)}
    assert {
        "runs/store/pool/artifact.json",
        "runs/store/score/artifact.json",
        "runs/store/score/scores/part-00000.parquet",
        "runs/store/select/selected_data.jsonl",
    } <= names
    assert not [name for name in names if "claims" in name or "how.json" in name]
    assert [name for name in names if name.endswith("/report.html")]
    assert selected(tmp_path / "hosts/one") == selected("alone")
    project.calls()
    # Another host: everything is reused, and what a report reads is fetched.
    host(monkeypatch, tmp_path, "two")
    before = keys(s3)
    said = project.run(*SCORE, *REMOTE)
    assert said.code == 0, said.err
    assert not [call for call in project.calls() if call.startswith(("score", "filter"))]
    assert "reused" in said.err
    assert " done in " not in said.err
    assert selected(tmp_path / "hosts/two") == selected("alone")
    after = keys(s3)
    assert {key: after[key] for key in before if "/store/" in key and "locks" not in key} == {
        key: tag for key, tag in before.items() if "/store/" in key and "locks" not in key
    }
    # Commands about a run, on a third host.
    host(monkeypatch, tmp_path, "three")
    listed = project.call("runs", *REMOTE)
    assert listed.code == 0, listed.err
    assert listed.out.count("fake/") == 2
    [one, _] = sorted({key.rpartition("/")[0] for key in before if key.endswith("run.json")} | {
        key.rpartition("/")[0] for key in after if key.endswith("run.json")
    })  # fmt: skip
    run = f"s3://{BUCKET}/{one}"
    row = json.loads(selected("alone").splitlines()[0])["id"]
    explained = project.call("explain", run, row)
    assert explained.code == 0, explained.err
    assert "rank 1" in explained.out or "selected" in explained.out
    exported = project.call("export", run, "--to", "trl", "--out", "exported")
    assert exported.code == 0, exported.err
    reported = project.call("report", run)
    assert reported.code == 0, reported.err
    assert project.call("explain", f"s3://{BUCKET}/{one}x", row).code == 1


@pytest.mark.slow
def test_another_host_goes_on_where_a_killed_one_was(project, s3, tmp_path, monkeypatch):
    write_rows(project.folder / "pool.jsonl", rows_of(60))
    assert project.run(*SCORE, "--outputs", "alone").code == 0
    project.tell("slow", "0.5")
    command = [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, "run", "recipe.toml"]
    process = subprocess.Popen([*command, *SCORE, *REMOTE], cwd=project.folder)
    wait_for(lambda: sum("/scores/part-" in key for key in keys(s3)) >= 4, process)
    process.kill()
    process.wait()
    there = [key for key in keys(s3) if "/scores/part-" in key]
    project.untell("slow")
    project.calls()
    host(monkeypatch, tmp_path, "two")
    said = project.run(*SCORE, *REMOTE)
    assert said.code == 0, said.err
    finished = {int(key[-13:-8]) for key in there}
    assert shards(project.calls()) == sorted(set(range(15)) - finished)
    assert selected(tmp_path / "hosts/two") == selected("alone")


@pytest.mark.slow
def test_a_damaged_object_is_named_and_made_again(project, s3, tmp_path, monkeypatch):
    said = project.run(*SCORE, *REMOTE)
    assert said.code == 0, said.err
    before = selected(tmp_path / "hosts/one")
    [cut] = [key for key in keys(s3) if key.endswith("scores/part-00002.parquet")]
    [other] = [key for key in keys(s3) if key.endswith("selected_data.jsonl")]
    s3.put_object(Bucket=BUCKET, Key=cut, Body=b"short")
    size = s3.head_object(Bucket=BUCKET, Key=other)["ContentLength"]
    s3.put_object(Bucket=BUCKET, Key=other, Body=b"x" * size)
    project.calls()
    host(monkeypatch, tmp_path, "two")
    said = project.run(*SCORE, *REMOTE, "select.fraction=0.5")
    assert said.code == 0, said.err
    assert f"s3://{BUCKET}/{cut} has 5 bytes and not" in said.err
    assert shards(project.calls()) == [2]
    said = project.run(*SCORE, *REMOTE)
    assert said.code == 0, said.err
    what = f"s3://{BUCKET}/{other} holds something else than what was written"
    assert f"warning: {what}; it is made again" in said.err
    assert s3.get_object(Bucket=BUCKET, Key=other)["Body"].read() == before


@pytest.mark.slow
def test_a_run_and_workers_on_several_hosts_share_a_stage(project, s3, tmp_path, monkeypatch):
    write_rows(project.folder / "pool.jsonl", rows_of(60))
    assert project.run(*SCORE, "--outputs", "alone").code == 0
    assert project.run(*SCORE, *REMOTE, "--until", "pool").code == 0
    project.calls()
    project.tell("slow", "0.5")
    command = [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, "worker", "recipe.toml"]
    crowd = [
        subprocess.Popen(
            [*command, *SCORE[:3], "--stage", "score", *REMOTE],
            cwd=project.folder,
            env={**os.environ, "SELECTMOE_CACHE": str(tmp_path / "hosts" / f"worker-{number}")},
        )
        for number in range(2)
    ]
    said = project.run(*SCORE, *REMOTE)
    assert [process.wait(PATIENCE) for process in crowd] == [0, 0]
    assert said.code == 0, said.err
    assert shards(project.calls()) == list(range(15))
    assert selected(tmp_path / "hosts/one") == selected("alone")


# ---------------------------------------------------------------------------- the store by itself


def made(store, digest="d" * 64, content=b"content"):
    """An artifact of a stage, finished in the store's folder."""
    folder = store.folder("score", digest)
    (folder / "scores").mkdir(parents=True)
    (folder / "scores" / "part-00000.parquet").write_bytes(content)
    (folder / "facts.json").write_text("{}")
    (folder / "claims").mkdir()
    (folder / "claims" / "00000.0").write_text("x")
    Artifact("score", "fake", digest, folder, {"n": 1}).save(passing=("claims/00000.0",))
    return digest


@pytest.fixture(params=["memory", "file", "s3"])
def address(request, tmp_path):
    """An address of each kind of store."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://{BUCKET}/runs"
    if request.param == "memory":
        return f"memory://{tmp_path.name}/runs"
    return f"file://{tmp_path}/there/runs"


def on(address, tmp_path, name):
    """The store of an address, as a host with its own cache has it."""
    return RemoteStore(tmp_path / name / "store", objects=Objects(f"{address}/store"))


def test_a_published_artifact_is_found_and_fetched(address, tmp_path):
    one, two = on(address, tmp_path, "one"), on(address, tmp_path, "two")
    digest = made(one)
    assert two.find("score", digest) is None
    one.publish("score", digest)
    found = two.find("score", digest)
    assert (found.facts, found.folder) == ({"n": 1}, two.folder("score", digest))
    assert not found.folder.exists()
    two.fetch("score", digest, without=["scores"])
    assert not (found.folder / "scores").exists()
    assert two.find("score", digest) is not None
    two.fetch("score", digest)
    assert (found.folder / "scores" / "part-00000.parquet").read_bytes() == b"content"
    assert not (found.folder / "claims").exists()
    two.remove("score", digest)
    assert two.find("score", digest) is None
    assert one.objects.sizes(one.folder("score", digest).name) == {}


def test_a_file_that_changed_there_is_named_and_the_artifact_counts_as_not_made(address, tmp_path):
    one, two = on(address, tmp_path, "one"), on(address, tmp_path, "two")
    digest = made(one)
    one.publish("score", digest)
    name = f"{one.folder('score', digest).name}/scores/part-00000.parquet"
    one.objects.write(name, "CONTENT")
    assert two.find("score", digest) is not None  # its size is right
    with pytest.raises(DamagedError, match=re.escape(f"{address}/store/{name} holds something")):
        two.fetch("score", digest)
    assert two.find("score", digest) is None
    one.publish("score", digest)
    one.objects.write(name, "longer than it was")
    assert two.damage("score", digest).endswith("part-00000.parquet has 18 bytes and not 7")
    assert two.find("score", digest) is None
    one.objects.remove(name)
    assert two.damage("score", digest).endswith("part-00000.parquet is missing")


def test_one_of_two_hosts_makes_an_artifact(address, tmp_path):
    one, two = on(address, tmp_path, "one"), on(address, tmp_path, "two")
    said = []
    with one.lock("score", "d" * 64, said.append):
        place = ObjectPlace(two.objects, "locks")
        with Leases(place) as leases:
            name, holders = leases.take_over([one.folder("score", "d" * 64).name])
        assert name is None
        assert str(os.getpid()) in holders[0]
    with two.lock("score", "d" * 64, said.append):
        pass
    assert said == []


def test_files_of_a_stage_that_is_being_made_are_shared(address, tmp_path):
    one, two = on(address, tmp_path, "one"), on(address, tmp_path, "two")
    path = one.folder("score", "e" * 64) / "scores" / "part-00003.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    there = two.folder("score", "e" * 64)
    assert not two.has_file(there / "scores" / "part-00003.parquet")
    one.publish_file(path)
    assert two.has_file(there / "scores" / "part-00003.parquet")
    assert list(two.names_of(there)) == ["scores/part-00003.parquet"]
    two.fetch_files(there)
    assert list(two.names_of(there)) == []
    assert one.agree(path.parents[1] / "shards.json", "first")
    assert not two.agree(there / "shards.json", "second")
    assert (there / "shards.json").read_text() == "first"


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", "a//b", "", "a\\b", "a/\n"])
def test_no_name_leads_outside(tmp_path, name):
    objects = Objects(f"file://{tmp_path}/there")
    with pytest.raises(StageError, match="cannot be the name of a file"):
        objects.write(name, "x")
    with pytest.raises(StageError):
        objects.get(name, tmp_path / "here", "a")
    objects.write("fine", "x")
    with pytest.raises(StageError):
        objects.get("fine", tmp_path / "here", name)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["fine"]


def test_a_link_in_the_cache_does_not_lead_outside(tmp_path):
    objects = Objects(f"file://{tmp_path}/there")
    objects.write("a/file", "x")
    (tmp_path / "here").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "here" / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(StageError, match="leads out of the folder"):
        objects.get("a/file", tmp_path / "here", "a/file")
    assert not list((tmp_path / "outside").iterdir())


def test_an_unknown_protocol_and_a_missing_package_are_mistakes_of_the_command_line(monkeypatch):
    with pytest.raises(RecipeError, match="nothing://x") as found:
        Objects("nothing://x/y")
    assert "s3://bucket/prefix" in found.value.hint
    monkeypatch.setitem(sys.modules, "s3fs", None)
    from fsspec.registry import _registry

    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(RecipeError) as found:
        Objects("s3://bucket/x")
    assert "s3fs" in found.value.hint


def test_a_store_that_cannot_be_reached_is_an_error_with_its_address(monkeypatch, tmp_path):
    objects = Objects(f"file://{tmp_path}/there")
    objects.write("a", "x")
    monkeypatch.setattr(
        objects._system, "cat_file", lambda _: (_ for _ in ()).throw(RuntimeError("no network"))
    )
    with pytest.raises(StageError, match=r"/there/a: RuntimeError: no network") as found:
        objects.read("a")
    assert "credentials" in found.value.hint


def test_a_cache_knows_its_address(tmp_path, monkeypatch):
    monkeypatch.setenv("SELECTMOE_CACHE", str(tmp_path / "cache"))
    one = local_outputs("memory://bucket/a/")
    assert address_of(one) == "memory://bucket/a"
    assert local_outputs("memory://bucket/a") == one
    assert local_outputs("memory://bucket/b") != one
    assert isinstance(store_at(one / "store"), RemoteStore)
    assert not isinstance(store_at(tmp_path / "store"), RemoteStore)
