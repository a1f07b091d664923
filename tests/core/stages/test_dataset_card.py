"""The dataset card: the hub reads its head, its figures are those of the selection."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import DatasetCard

from selectmoe_core.stages.dataset_card import dataset_card
from selectmoe_core.store import Artifact

HOSTILE = "a|b\n<script>_x_"


def card_of(kept: int, sources: dict) -> str:
    facts = {"kept": kept, "of": 4000, "sources": sources}
    spec = SimpleNamespace(component="top-k", options={"k": 7, "per": "source"}, digest="ab" * 32)
    options = {"options": {"statistic": "trash_mass", "layers": "all"}}
    score = Artifact("score", "router", "cd" * 32, Path("scores"), {}, 0.0, options)
    return dataset_card(facts, spec, score, "selected_data.jsonl")


def test_the_hub_reads_the_head_and_a_reader_the_figures():
    text = card_of(432, {"a": {"kept": 400, "of": 3000}, HOSTILE: {"kept": 32, "of": 1000}})
    data = DatasetCard(text).data
    assert data.size_categories == ["n<1K"]
    assert data.configs == [{"config_name": "default", "data_files": "selected_data.jsonl"}]
    assert data.task_categories == ["text-generation"]
    assert "432 of 4,000 examples (10.8%)" in text
    assert "`top-k`, by the score `router`" in text
    assert "| a | 400 of 3,000 |" in text
    assert "| a\\|b \\<script\\>\\_x\\_ | 32 of 1,000 |" in text
    assert '| score.statistic | "trash\\_mass" |' in text
    assert '| select.per | "source" |' in text


def test_the_file_beside_a_selection_is_a_card_of_the_hub(project):
    """The checks of the hub itself need its server; its format is read here."""
    assert project.run("--until", "select").code == 0
    [path] = project.folder.glob("outputs/fake/*/*/artifacts/select/README.md")
    card = DatasetCard.load(path)
    assert card.data.tags == ["instruction-tuning", "data-selection", "selectmoe"]
    head = path.read_text().split("---\n")[1]
    names = [line.partition(":")[0] for line in head.splitlines() if line[0].isalpha()]
    assert len(names) == len(set(names))
    [config] = card.data.configs
    assert (path.parent / config["data_files"]).is_file()
    assert card.text.strip().startswith("# Selected instruction data")


@pytest.mark.parametrize(
    ("kept", "size"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (2_000_000, "1M<n<10M")],
)
def test_sizes_are_those_of_the_hub(kept, size):
    assert DatasetCard(card_of(kept, {})).data.size_categories == [size]


def test_many_sources_are_added_up():
    sources = {f"s{n:02d}": {"kept": 100 - n, "of": 200} for n in range(25)}
    text = card_of(2200, sources)
    assert "| s19 | 81 of 200 |" in text
    assert "| s20 |" not in text
    assert f"5 more sources have {sum(100 - n for n in range(20, 25))} rows." in text
