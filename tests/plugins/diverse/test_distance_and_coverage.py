"""k-center and facility-location against plain loops over whole matrices of cosines."""

import numpy as np
import pytest
from vector_pools import PlainRows, best_first, blobs, cosines, table_beside

from selectmoe_core.testing import check_plugin
from selectmoe_diverse import facility_location, k_center
from selectmoe_diverse.config import FacilityLocationConfig, KCenterConfig
from selectmoe_diverse.facility_location import FacilityLocation, greedy
from selectmoe_diverse.k_center import KCenter, far_apart
from selectmoe_diverse.rows import drawn, unit


def drawn_blobs(random, *shape, threshold, **options):
    """Blobs without two vectors whose similarity is the threshold but for rounding."""
    while True:
        vectors, truth = blobs(random, *shape, **options)
        similar = cosines(vectors)
        if np.abs(similar - threshold)[~np.eye(len(vectors), dtype=bool)].min() > 1e-6:
            return vectors, truth, similar


def plain_far_apart(similar, rows, count, threshold):
    kept = []
    for place, row in enumerate(rows):
        if all(similar[row, rows[other]] < threshold for other in kept):
            kept.append(place)
        if len(kept) == count:
            break
    return kept


@pytest.mark.parametrize("threshold", [-0.2, 0.3, 0.9, 0.999, 1.0])
def test_far_apart_equals_a_loop_over_all_pairs(monkeypatch, threshold):
    monkeypatch.setattr(k_center, "BLOCK", 16)
    monkeypatch.setattr(k_center, "KEPT", 5)
    random = np.random.default_rng()
    for _ in range(10):
        vectors, _, similar = drawn_blobs(random, 8, 12, threshold=threshold, width=6, spread=0.2)
        rows = random.permutation(len(vectors))[:80]
        for count in (1, 7, 80):
            plain = PlainRows(vectors)
            found = far_apart(plain, rows, count, threshold)
            assert found.tolist() == plain_far_apart(similar, rows, count, threshold)
            assert plain.most <= 16


def test_an_equal_vector_and_one_of_zeros():
    vectors = np.array([[1, 2], [2, 4], [0, 0], [-1, 0], [0, 0]], dtype=np.float16)
    found = far_apart(PlainRows(vectors), np.arange(5), 5, 0.99)
    assert found.tolist() == [0, 2, 3, 4]  # zeros are similar to nothing, not even to zeros


def test_k_center_of_the_pool_and_of_each_source(tmp_path):
    random = np.random.default_rng()
    vectors, _, similar = drawn_blobs(random, 12, 15, threshold=0.95, width=6, spread=0.15)
    table, plain, job = table_beside(tmp_path, vectors, random)
    order = [row["row"] for row in best_first(plain)]
    found = KCenter(KCenterConfig(k=25, threshold=0.95)).select(table, job)
    places = plain_far_apart(similar, order, 25, 0.95)
    assert found.rows.tolist() == [order[place] for place in places]
    expected = [f"{place - n} better ones left out as too similar"
                for n, place in enumerate(places)]  # fmt: skip
    assert found.reason.to_pylist() == expected

    config = KCenterConfig(k=24, threshold=0.95, per="source", floor=4)
    found = KCenter(config).select(table, job)
    for name in "abc":
        own = [row for row in order if plain[row]["source"] == name]
        kept = [row for row in found.rows if plain[row]["source"] == name]
        places = plain_far_apart(similar, own, len(kept), 0.95)
        assert sorted(kept) == sorted(own[place] for place in places)
    scores = [plain[row]["score"] for row in found.rows]
    assert scores == sorted(scores, reverse=True)


def test_where_no_more_are_dissimilar_it_keeps_fewer_and_says_so(tmp_path):
    random = np.random.default_rng()
    vectors, truth = blobs(random, 4, 30, spread=0.01)
    table, _, job = table_beside(tmp_path, vectors, random)
    found = KCenter(KCenterConfig(k=20, threshold=0.97)).select(table, job)
    assert len(set(truth[found.rows].tolist())) == len(found.rows) == 4
    assert found.warnings == ("kept 4 of the 20 asked for",)
    per = KCenter(KCenterConfig(k=20, threshold=0.97, per="source")).select(table, job)
    assert any("the other sources give the rest" in text for text in per.warnings)
    assert per.warnings[-1].startswith("kept ")


def plain_greedy(similar, candidates, ground, quality, weight, count):
    """Every gain of every candidate, again in every step."""
    best = np.zeros(len(ground))
    taken, covered = [], []
    for _ in range(count):
        gains = [
            -1.0
            if place in taken
            else (1 - weight)
            / len(ground)
            * np.round(np.maximum(similar[row, ground] - best, 0).sum(), 4)
            + weight * quality[place] / count
            for place, row in enumerate(candidates)
        ]
        place = int(np.argmax(gains))
        best = np.maximum(best, similar[candidates[place], ground])
        taken.append(place)
        covered.append(best.mean())
    return taken, covered


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9])
def test_lazy_greedy_equals_the_greedy_that_computes_every_gain(monkeypatch, weight):
    monkeypatch.setattr(facility_location, "BLOCK", 16)
    monkeypatch.setattr(facility_location, "AGAIN", 3)
    monkeypatch.setattr(facility_location, "KEPT_BYTES", 50 * 4 * 5)  # so that some are forgotten
    random = np.random.default_rng(17)  # a gain on the edge of two roundings would be a tie
    for _ in range(10):
        vectors = random.normal(size=(90, 7)).astype(np.float16)
        similar = cosines(vectors)
        candidates, ground = random.permutation(90)[:60], random.permutation(90)[:50]
        quality = random.random(60)
        plain = PlainRows(vectors)
        places, covered = greedy(
            plain, candidates, unit(vectors[ground]), quality, weight, count=20
        )
        taken, expected = plain_greedy(similar, candidates, ground, quality, weight, 20)
        assert places.tolist() == taken
        np.testing.assert_allclose(covered, expected, rtol=1e-5)
        assert plain.most <= 16


def test_facility_location_covers_every_blob_first_and_quality_moves_it(tmp_path):
    random = np.random.default_rng(3)
    vectors, truth = blobs(random, 6, 40, spread=0.05)
    table, plain, job = table_beside(tmp_path, vectors, random)
    found = FacilityLocation(FacilityLocationConfig(k=6, quality=0.0)).select(table, job)
    assert len(set(truth[found.rows].tolist())) == 6
    shares = [float(text.split()[1]) for text in found.reason.to_pylist()]
    assert shares == sorted(shares)
    means = []
    for quality in (0.0, 0.5, 0.99):
        config = FacilityLocationConfig(k=20, quality=quality)
        rows = FacilityLocation(config).select(table, job).rows
        means.append(np.mean([plain[row]["score"] for row in rows]))
    assert means[0] < means[1] <= means[2]
    best = [row["row"] for row in best_first(plain)][:20]
    assert set(rows.tolist()) == set(best)


def test_facility_location_with_a_sample_and_few_candidates(tmp_path):
    random = np.random.default_rng(23)
    vectors = random.normal(size=(200, 6)).astype(np.float16)
    table, plain, job = table_beside(tmp_path, vectors, random)
    config = FacilityLocationConfig(k=9, sample=50, candidates=30, quality=0.2)
    found = FacilityLocation(config).select(table, job)
    order = np.array([row["row"] for row in best_first(plain)])
    sample = drawn(table, np.sort(order), 50, job.seed)
    quality = 1 - (np.arange(30) + 0.5) / len(order)
    taken, _ = plain_greedy(cosines(vectors), order[:30], sample, quality, 0.2, 9)
    assert found.rows.tolist() == order[taken].tolist()
    config = FacilityLocationConfig(k=12, per="source", quota={"c": 0.25})
    groups = FacilityLocation(config).select(table, job).group.to_pylist()
    assert groups.count("c") == 3


def test_a_sample_does_not_depend_on_the_order_of_the_table(tmp_path):
    random = np.random.default_rng()
    vectors = random.normal(size=(100, 4)).astype(np.float16)
    table, plain, _ = table_beside(tmp_path, vectors, random)
    some = drawn(table, np.arange(100), 20, 3)
    ids = [plain[row]["id"] for row in some]
    assert ids == sorted(ids)
    assert drawn(table, np.arange(100), 100, 3).tolist() == [
        row["row"] for row in sorted(plain, key=lambda row: row["id"])
    ]
    assert some.tolist() != drawn(table, np.arange(100), 20, 4).tolist()


def test_the_plugin_is_sound():
    check_plugin("selectmoe_diverse.plugin")
