"""Near-duplicates beside all pairs compared one by one."""

import re
from itertools import combinations, pairwise

import numpy as np
import pytest
from filter_pools import conversation, marked
from scipy.stats import poisson

from selectmoe_filters.candidates import RECALL, VALUES, bands_for, candidate_pairs, similarities
from selectmoe_filters.config import NearDuplicatesConfig
from selectmoe_filters.duplicates import NearDuplicates
from selectmoe_filters.shingles import runs

WORDS = [f"w{n}" for n in range(400)]


def sentence(random, count):
    return " ".join(random.choice(WORDS, size=count).tolist())


def edited(random, text, share):
    """The text with some of its words changed."""
    own = text.split()
    for place in np.flatnonzero(random.random(len(own)) < share):
        own[place] = random.choice(WORDS)
    return " ".join(own)


def plain_set(row, ngram):
    """The runs of words and signs of a conversation, the roles among them."""
    own = []
    for message in row.messages:
        text = " ".join(message.content.lower().split())
        own += [f"<{message.role}>", *re.findall(r"\w+|[^\w\s]", text)]
    return {tuple(own[i : i + ngram]) for i in range(max(len(own) - ngram + 1, 1))}


def plain_groups(rows, similarity, ngram):
    """Connected rows, by comparing every pair, and how many similar pairs hashing may miss."""
    sets = [plain_set(row, ngram) for row in rows]
    label = list(range(len(rows)))
    bands, values = bands_for(similarity)
    missed = 0.0
    for a, b in combinations(range(len(rows)), 2):
        jaccard = len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        if jaccard >= similarity:
            missed += (1 - jaccard**values) ** bands
            old, new = label[b], label[a]
            label = [new if one == old else one for one in label]
    found = {}
    for row, own in enumerate(label):
        found.setdefault(own, set()).add(row)
    return {frozenset(own) for own in found.values() if len(own) > 1}, missed


@pytest.mark.parametrize(("similarity", "ngram"), [(0.8, 3), (0.6, 2), (1.0, 3), (0.9, 1)])
def test_groups_equal_those_of_all_pairs(tmp_path, similarity, ngram):
    random = np.random.default_rng()
    rows = []
    for n in range(60):
        prompt, answer = f"{n} {sentence(random, 12)}", sentence(random, random.integers(1, 60))
        rows.append(conversation(prompt, answer))
        for copy in range(random.integers(0, 4)):
            changed = edited(random, answer, random.choice([0.0, 0.01, 0.5]))
            rows.append(conversation(prompt.upper(), f"{changed} {' ' * copy}"))
            rows.append(conversation(prompt, f"{changed} {'!' * copy}."))
    rows = list({row.messages: row for row in rows}.values())
    rows = [rows[n] for n in random.permutation(len(rows))]
    config = NearDuplicatesConfig(similarity=similarity, ngram=ngram)
    _, found = marked(NearDuplicates(config), rows, tmp_path)
    expected, pairs_missed = plain_groups(rows, similarity, ngram)
    assert expected
    # Nothing is grouped that a comparison of all pairs does not group.
    for group in found:
        assert any(group <= whole for whole in expected)
    # Each pair is missed with the probability of its similarity: so many are not, in 1e9 tests.
    assert len(expected - found) <= poisson.ppf(1 - 1e-9, pairs_missed)


def test_case_spaces_and_beginnings_are_alike(tmp_path):
    rows = [
        conversation("Name a tree.", "Oak"),
        conversation("Name a tree.", "Oak "),
        conversation("name  a\ntree.", "OAK"),
        conversation(
            "Name a tree.", "Oak", "And a longer one?", "A sequoia is the longest of all."
        ),
        conversation("Name a tree.", "Ash"),
        conversation("Name a tree.", "Ash", "Why?", "Because it came to mind first."),
        conversation("\uff26ull wid\uff54h?", "x"),
        conversation("Full width?", "x"),
        conversation("2 + 3", "5"),
        conversation("2 - 3", "5"),
    ]
    _, found = marked(NearDuplicates(NearDuplicatesConfig()), rows, tmp_path / "all")
    assert found == {frozenset({0, 1, 2, 3}), frozenset({4, 5}), frozenset({6, 7})}
    alone = NearDuplicatesConfig(prefixes=False)
    _, found = marked(NearDuplicates(alone), rows, tmp_path / "alone")
    assert found == {frozenset({0, 1, 2}), frozenset({6, 7})}
    answers = NearDuplicatesConfig(text="answers")
    _, found = marked(NearDuplicates(answers), rows, tmp_path / "answers")
    assert found == {frozenset({0, 1, 2}), frozenset({6, 7}), frozenset({8, 9})}
    prompts = NearDuplicatesConfig(text="prompt", similarity=1)
    _, found = marked(NearDuplicates(prompts), rows, tmp_path / "prompts")
    assert frozenset({0, 1, 2, 4}) in found


def test_a_small_or_empty_answer_is_no_special_case(tmp_path):
    rows = [conversation("?", "!"), conversation("? ", "!"), conversation("。", "、")]
    _, found = marked(NearDuplicates(NearDuplicatesConfig()), rows, tmp_path)
    assert found == {frozenset({0, 1})}


def test_runs_equal_a_plain_window():
    random = np.random.default_rng()
    texts = [random.integers(1, 5, size=random.integers(0, 9)) for _ in range(50)]
    ends = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    for ngram in (1, 2, 4):
        values, sizes = runs(np.concatenate(texts).astype(np.uint64), ends, ngram)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        own = [set(values[a:b].tolist()) for a, b in pairwise(starts)]
        plain = [
            {
                tuple(text[i : i + ngram])
                for i in range(max(len(text) - ngram + 1, min(len(text), 1)))
            }
            for text in texts
        ]
        assert sizes.tolist() == [len(one) for one in plain]
        pairs = np.array(list(combinations(range(50), 2)))
        found = np.concatenate(list(similarities(values, starts, pairs, block=100)))
        for (a, b), value in zip(pairs.tolist(), found.tolist(), strict=True):
            union = len(plain[a] | plain[b])
            assert value == (len(plain[a] & plain[b]) / union if union else 0)
            assert len(own[a] & own[b]) == len(plain[a] & plain[b])


def test_bands_find_what_they_promise():
    for similarity in np.linspace(0.5, 1, 26).tolist():
        bands, rows = bands_for(similarity)
        assert bands * rows <= VALUES
        assert 1 - (1 - similarity**rows) ** bands >= RECALL


def test_a_key_that_all_share_costs_no_square():
    pairs = candidate_pairs(np.zeros(1000, dtype=np.uint64), np.arange(1000))
    assert len(pairs) < 10 * 1000
    assert (pairs[:, 0] < pairs[:, 1]).all()
    connected = np.zeros(1000, dtype=bool)
    connected[np.unique(pairs)] = True
    assert connected.all()
    assert len(candidate_pairs(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))) == 0
