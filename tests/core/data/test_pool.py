"""The pool against plain lists: what stays, what is counted, what is read back."""

import json
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selectmoe_core.data import pool_writer as pool_build
from selectmoe_core.data.examples import Message, RawExample, Reject, content_id
from selectmoe_core.data.pool import Pool, draw, hash_ids
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.errors import DataError, StageError


def row(prompt="q", answer="a", source="s", **more) -> RawExample:
    return RawExample(source, (Message("user", prompt), Message("assistant", answer)), **more)


def random_rows(rng: random.Random, count: int, distinct: int) -> list[RawExample | Reject]:
    """Rows with many exact duplicates (also across sources) and some rejects."""
    rows: list[RawExample | Reject] = []
    for number in range(count):
        source = rng.choice(["alpha", "beta", "größe"])
        where = f"f:{number}"
        if rng.random() < 0.1:
            rows.append(Reject(source, where, f"reason {number}"))
            continue
        seed = random.Random(rng.randrange(distinct))
        texts = [
            "".join(seed.choices("ab é\u2028🙂\n", k=seed.randrange(12)))
            for _ in range(2 * seed.randrange(1, 4))
        ]
        texts[1] += "x"
        turns = [
            Message("user" if index % 2 == 0 else "assistant", text)
            for index, text in enumerate(texts)
        ]
        if seed.random() < 0.3:
            turns.insert(0, Message("system", "sys"))
        rows.append(RawExample(source, tuple(turns), where, f"id{number}", f"label{number}"))
    return rows


def reference(rows):
    """The same in plain Python: (kept rows, counts per source)."""
    seen, kept = set(), []
    counts = defaultdict(lambda: dict.fromkeys(ZERO, 0))
    for one in rows:
        of = counts[one.source]
        if isinstance(one, Reject):
            of["rejected"] += 1
        elif one.messages in seen:
            of["duplicates"] += 1
        else:
            seen.add(one.messages)
            kept.append(one)
            of["examples"] += 1
            of["turns"] += len(one.messages)
            for message in one.messages:
                answer = message.role == "assistant"
                key = "response_characters" if answer else "prompt_characters"
                of[key] += len(message.content)
    return kept, dict(counts)


ZERO = (
    *("examples", "rejected", "duplicates", "turns"),
    *("prompt_characters", "response_characters"),
)


def small_batches(monkeypatch, batch=7, deduplicate=13):
    monkeypatch.setattr(pool_build, "BATCH_ROWS", batch)
    monkeypatch.setattr(pool_build, "DEDUPLICATE_ROWS", deduplicate)


def assert_holds(pool: Pool, kept) -> None:
    found = list(pool.examples())
    assert len(pool) == len(found) == len(kept)
    assert [e.messages for e in found] == [r.messages for r in kept]
    assert [e.source for e in found] == [r.source for r in kept]
    assert [e.id for e in found] == [content_id(r.messages).hex() for r in kept]
    notes = [(r.original_id, r.where, r.label) for r in kept]
    assert [tuple(pool.meta(n).values()) for n in range(len(pool))] == notes


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_a_plain_reference(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    small_batches(monkeypatch, rng.choice([1, 2, 7, 100]), rng.choice([1, 5, 13, 1000]))
    rows = random_rows(rng, rng.choice([1, 3, 60, 250]), rng.choice([2, 40, 10_000]))
    rows.append(row("always", "one"))
    advanced = []
    pool = build_pool(rows, tmp_path, on_reject="skip", advance=advanced.append)
    kept, counts = reference(rows)
    assert_holds(pool, kept)
    assert {name: vars(of) for name, of in pool.sources.items()} == counts
    assert list(pool.rejects()) == [one for one in rows if isinstance(one, Reject)]
    assert sum(advanced) == len(rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["pool.arrow", "batches.npy", "rejects.jsonl", "pool.json"]
    )


def test_rows_that_are_all_the_same(tmp_path, monkeypatch):
    small_batches(monkeypatch, 3, 4)
    pool = build_pool([row() for _ in range(20)], tmp_path)
    assert len(pool) == 1
    assert pool.sources["s"].duplicates == 19


def test_ids_do_not_depend_on_source_or_notes(tmp_path):
    one = row(source="x", where="a:1", original_id="1")
    pool = build_pool([one, row(source="y", where="b:2", label="good")], tmp_path)
    assert len(pool) == 1
    assert (pool.sources["x"].examples, pool.sources["y"].duplicates) == (1, 1)
    assert pool.sources["y"].turns == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    patch = pytest.MonkeyPatch()
    small_batches(patch, 7, 50)
    rows = random_rows(random.Random(5), 200, 10_000)
    pool = build_pool(rows, folder, on_reject="skip")
    patch.undo()
    return pool, reference(rows)[0]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 220), stop=st.none() | st.integers(0, 220), data=st.data())
def test_any_stretch_reads_as_a_list_does(shared, start, stop, data):
    pool, kept = shared
    wanted = [r.messages for r in kept[start:stop]]
    assert [e.messages for e in pool.examples(start, stop)] == wanted
    ids = pool.ids(start, stop)
    assert ids.shape == (len(wanted), 2)
    assert ids.dtype == np.uint64
    assert [word.tobytes() for word in ids.astype(">u8")] == [content_id(m) for m in wanted]
    assert pool.source_names(start, stop).to_pylist() == [r.source for r in kept[start:stop]]
    rows = data.draw(st.lists(st.integers(0, len(kept) - 1), max_size=9))
    assert [e.messages for e in pool.take(rows)] == [kept[n].messages for n in rows]
    assert [e.messages for e in pool.take(np.array(rows))] == [kept[n].messages for n in rows]


def test_rows_outside_are_refused(shared):
    pool, kept = shared
    for wrong in (-1, len(kept)):
        with pytest.raises(IndexError, match="outside the pool"):
            list(pool.take([0, wrong]))


def test_a_pool_opened_again_is_the_same(shared):
    pool, kept = shared
    again = Pool.open(pool.folder)
    assert_holds(again, kept)
    assert again.sources == pool.sources


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Reject("s", "f:9", "broken"), "f:9: broken"),
        (row(answer=" ", where="f:9"), "f:9: every answer of the assistant is empty"),
        (row(answer="\ud83d", where="f:9"), "f:9: its text has half of a surrogate pair"),
        (row(source="\udc00", where="f:9"), "f:9: its text has half of a surrogate pair"),
        (row(original_id="\udc00", where="f:9"), "half of a surrogate pair"),
        (RawExample("s", (), "f:9"), "f:9: it has no message"),
    ],
)
def test_a_reject_stops_or_is_skipped(tmp_path, bad, reason):
    stopped, skipped = tmp_path / "stopped", tmp_path / "skipped"
    stopped.mkdir()
    skipped.mkdir()
    with pytest.raises(DataError, match=reason) as raised:
        build_pool([row(), bad], stopped)
    assert "on_reject" in raised.value.hint
    pool = build_pool([row(), bad, row("other")], skipped, on_reject="skip")
    assert len(pool) == 2
    assert [reject.where for reject in pool.rejects()] == ["f:9"]
    assert sum(of.rejected for of in pool.sources.values()) == 1


def test_a_whole_surrogate_pair_is_text(tmp_path):
    text = json.loads('"\\ud83d\\ude42"')
    assert next(build_pool([row(text)], tmp_path).examples()).messages[0].content == "🙂"


def test_an_empty_pool_says_why(tmp_path):
    with pytest.raises(DataError, match="empty") as raised:
        build_pool([], tmp_path)
    assert "path and sources" in raised.value.hint
    rows = [Reject("x", "f:1", "r"), Reject("y", "f:2", "r"), Reject("y", "f:3", "r")]
    with pytest.raises(DataError, match="empty") as raised:
        build_pool(rows, tmp_path, on_reject="skip")
    assert "every row was rejected: 3 rows, the first at f:1: r" in raised.value.hint


def test_reasons_that_differ_in_numbers_alone_count_as_one(tmp_path):
    rows = [row("good", "one")]
    rows += [Reject("x", f"f:{n}", f"not valid JSON at column {n}") for n in range(1, 6)]
    rows += [Reject("x", f"f:{n}", "'messages' is missing") for n in (6, 7)]
    rows += [Reject("x", "f:8", "'prompt' is missing")]
    pool = build_pool(rows, tmp_path, on_reject="skip")
    assert [(one.text, one.rows, one.first) for one in pool.reasons] == [
        ("not valid JSON at column 1", 5, "f:1"),
        ("'messages' is missing", 2, "f:6"),
        ("'prompt' is missing", 1, "f:8"),
    ]
    assert Pool.open(tmp_path).reasons == pool.reasons
    assert str(pool.reasons[0]) == "5 rows, the first at f:1: not valid JSON at column 1"


def test_any_number_of_reasons_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_build, "DISTINCT_REASONS", 3)
    rows = [Reject("x", f"f:{n}", "reason " + "x" * (n % 50)) for n in range(200)]
    pool = build_pool([row(), *rows], tmp_path, on_reject="skip")
    assert [(one.text[:13], one.rows) for one in pool.reasons][:2] == [
        ("other reasons", 188),
        ("reason ", 4),
    ]


BAD = Reject("s", "f:9", "no answer")


@pytest.mark.parametrize(
    ("before", "after", "skip", "told"),
    [
        ([], [], False, "fix the row"),
        ([], [BAD] * 300, False, "none of the next 100 rows can be used either"),
        ([], [BAD] * 3 + [row()], True, "3 of the next 4 rows cannot be used either"),
        ([row()], [BAD] * 7, True, "7 of the next 7 rows cannot be used either"),
        ([row()], [row("r")] * 7, True, "to leave out such rows"),
        ([], [row()] * 300, True, "to leave out such rows"),
    ],
)
def test_nobody_is_advised_to_leave_out_everything(tmp_path, before, after, skip, told):
    with pytest.raises(DataError, match="f:9: no answer") as raised:
        build_pool([*before, BAD, *after], tmp_path)
    assert told in raised.value.hint
    assert ('on_reject = "skip"' in raised.value.hint) == skip


def test_advice_outlives_a_reader_that_fails(tmp_path):
    def rows():
        yield row()
        yield BAD
        raise DataError("the disk went away")

    with pytest.raises(DataError, match="f:9: no answer"):
        build_pool(rows(), tmp_path)


HALF = "\ud83d"


@pytest.mark.parametrize(
    "bad",
    [
        RawExample(HALF, row().messages, "f:1"),
        RawExample("s", row().messages, f"f{HALF}:1"),
        RawExample("s", row(HALF).messages, "f:1"),
        Reject(HALF, f"f{HALF}:1", f"reason {HALF}"),
        Reject("s" * 10_000, "f:1", "reason"),
        RawExample("s" * 201, row().messages, "f:1"),
    ],
)
def test_names_that_no_pool_can_hold_are_rejects(tmp_path, bad):
    pool = build_pool([row("good"), bad], tmp_path, on_reject="skip")
    assert len(pool) == 1
    (reject,) = Pool.open(tmp_path).rejects()
    for text in (reject.source, reject.where, reject.reason):
        text.encode()
        assert HALF not in text
    assert len(reject.source) <= 200
    assert pool.sources[reject.source].rejected == 1


def test_weights_are_kept(tmp_path):
    turns = (*row().messages, *row("r", "b").messages)
    some = (*turns[:1], Message("assistant", "a", trained=False), *turns[2:])
    pool = build_pool([RawExample("s", some), RawExample("s", turns)], tmp_path)
    assert [example.messages for example in pool.examples()] == [some, turns]
    assert next(pool.examples()).response == "b"


def test_a_pool_of_another_format_is_refused(tmp_path):
    build_pool([row()], tmp_path)
    counts = json.loads((tmp_path / "pool.json").read_text())
    (tmp_path / "pool.json").write_text(json.dumps(counts | {"format": 1}))
    with pytest.raises(StageError, match="its format is 1"):
        Pool.open(tmp_path)


def test_a_reader_that_fails_leaves_its_error(tmp_path):
    def rows():
        yield row()
        raise DataError("the disk went away")

    with pytest.raises(DataError, match="went away"):
        build_pool(rows(), tmp_path)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = random_rows(random.Random(1), 90, 60)
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_pool(rows, tmp_path / name, on_reject="skip")
        files.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert files[0] == files[1]


@pytest.mark.parametrize("seed", [0, 1, -5, 2**70])
def test_a_sample_follows_the_examples_not_their_order(tmp_path, seed):
    rows = [row(f"q{number}") for number in range(300)]
    samples = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pool = build_pool(rows, tmp_path / name)
        chosen = pool.sample(0.2, seed)
        assert len(chosen) == 60
        assert (np.diff(chosen) > 0).all()
        samples.append({e.id for e in pool.take(chosen)})
        random.Random(3).shuffle(rows)
    assert samples[0] == samples[1]
    assert samples[0] >= {e.id for e in pool.take(pool.sample(0.1, seed))}
    assert samples[0] != {e.id for e in pool.take(pool.sample(0.2, seed + 1))}


def test_sample_sizes(shared):
    pool, kept = shared
    assert len(pool.sample(1e-9, 0)) == 1
    assert pool.sample(1.0, 0).tolist() == list(range(len(kept)))
    assert draw(pool.ids(), 0, 0).tolist() == []
    assert draw(pool.ids(), 10_000, 0).tolist() == list(range(len(kept)))


def test_hashes_are_uniform_and_those_of_splitmix():
    ids = np.stack([np.arange(20_000), np.zeros(20_000)], 1).astype(np.uint64)
    for seed in (0, 1):
        bits = np.unpackbits(hash_ids(ids, seed).view(np.uint8)).reshape(-1, 64)
        assert abs(bits.mean(0) - 0.5).max() < 0.02
    assert len(np.unique(hash_ids(ids, 0))) == len(ids)
    assert (hash_ids(ids, 0) != hash_ids(ids, 1)).all()
    swapped = hash_ids(ids[:, ::-1].copy(), 0)
    assert (swapped[1:] != hash_ids(ids, 0)[1:]).all()

    def mix(word: int) -> int:
        word = (word + 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    pair = np.array([[2**63 + 5, 2**64 - 1]], dtype=np.uint64)
    expected = mix((2**63 + 5) ^ mix((2**64 - 1 + mix(7)) % 2**64))
    assert int(hash_ids(pair, 7)[0]) == expected


MEASURE = """
import sys, threading, time
from pathlib import Path
from selectmoe_core.data import pool_writer as pool_build
from selectmoe_core.data.examples import Message, RawExample
pool_build.DEDUPLICATE_ROWS = 1 << 12
text = "some words of an answer " * 40
peak, done = 0.0, False
def row(number):
    return RawExample("s", (Message("user", str(number)), Message("assistant", text)))
def watch():
    global peak
    while not done:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = max(peak, *(int(l.split()[1]) / 1024 for l in lines if l.startswith("RssAnon")))
        time.sleep(0.002)
pool_build.build_pool(map(row, range(3000)), Path(sys.argv[1]))
thread = threading.Thread(target=watch)
thread.start()
time.sleep(0.1)
before = peak
pool = pool_build.build_pool((row(n % 59991) for n in range(60000)), Path(sys.argv[2]))
done = True
thread.join()
print(len(pool), peak - before, (Path(sys.argv[2]) / "pool.arrow").stat().st_size / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_stays_flat(tmp_path):
    """A pool of some 60 MB is built and deduplicated in a fraction of that."""
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    rows, grown, size = map(float, done.stdout.split())
    assert rows == 60_000 - 9
    assert size > 50
    # Anonymous memory alone: pages of the mapped file are the system's to take back.
    assert grown < 20, (grown, size)
