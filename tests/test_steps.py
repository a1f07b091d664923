"""Each step of the chain on its own, with the tiny bundled models and the recipes that ship."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("desk")


def artifact(desk: Path, stage: str) -> Path:
    found = {path.resolve() for path in desk.glob(f"outputs/*/*/*/artifacts/{stage}")}
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def selected(desk: Path) -> list[str]:
    lines = (artifact(desk, "select") / "selected_data.jsonl").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_the_steps_one_after_another(cli, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.chdir(desk)

    def done(*arguments: object) -> str:
        said = cli(*arguments)
        assert said.code == 0, said.err
        return str(said.out)

    done("convert", "bundled:nano-olmoe", "converted")
    done("verify", "converted", "bundled:nano-olmoe", "--tolerance", "1e-6")
    small = ("pool.examples=60", "chat.max_length=128")
    done("run", "steps/warmup", "warmup.model=converted", *small, "warmup.subset_ratio=0.5")
    warmed = artifact(desk, "warmup")
    # verify takes the folder of a finished stage as well, and says why a warm-up differs.
    done("run", "steps/convert")
    found = done("verify", artifact(desk, "convert"), "bundled:nano-olmoe", "--no-logits")
    assert "largest_difference: 0" in found
    said = cli("verify", warmed, "bundled:nano-olmoe", "--no-logits")
    assert said.code == 2
    assert "was warmed up: its router differs from the original's on purpose" in said.err
    assert "verify the converted model that it started from: " in said.err

    # The folder of the stage, the model in it, and the same gates as a state file.
    scored = ("run", "steps/score", *small, "score.tokens=response", "select.fraction=0.2")
    done(*scored, f"score.model={warmed}")
    first = selected(desk)
    assert len(first) == 12
    assert (
        "score             router             reused"
        in cli(*scored, f"score.model={warmed / 'model'}").err
    )
    gates = load_file(warmed / "model" / "partial.safetensors")
    torch.save({"full_rank_weights": gates, "mode": "parameter"}, "full_rank_weights.pt")
    done(*scored, "score.model=full_rank_weights.pt", "score.base_model=converted")
    assert selected(desk) == first

    # Training on the selection needs neither pool nor score.
    rows = artifact(desk, "select") / "selected_data.jsonl"
    done("run", "steps/train", f"train.data={rows}", "train.max_steps=1", "chat.max_length=128")
    adapter = artifact(desk, "train")
    assert (adapter / "model" / "adapter_config.json").is_file()

    # A base, its adapter, and both side by side.
    few = ("run", "steps/evaluate", "evaluate.limit=4")
    assert done(*few).splitlines()[0].split()[:2] == ["task", "base"]
    both = done(*few, f"evaluate.adapter={adapter}", "compare.baselines=base")
    assert both.splitlines()[0].split()[:3] == ["task", "base", "adapter"]
