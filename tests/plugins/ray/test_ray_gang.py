"""A gang of the executor ``ray``: torchrun's variables, and a training that equals one here."""

import pytest
from clusters import Desk, cluster_of
from conftest import rows_of, write_rows

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from selectmoe_ray.gang import Seat, _variables

RECIPE = """\
format = 1
name = "gang"

[train]
use = "llama-lora"
model = "bundled:nano-llama"
data = "chats.jsonl"
max_steps = 2
batch_size = 4
"""


def test_ranks_of_a_node_see_its_gpus_and_follow_one_another():
    seats = [
        Seat("a", "10.0.0.1", 4001, ("2",)),
        Seat("a", "10.0.0.1", 4002, ("5",)),
        Seat("b", "10.0.0.2", 4003, ("0",)),
    ]
    found = _variables(seats)
    assert [one["RANK"] for one in found] == ["0", "1", "2"]
    assert [one["LOCAL_RANK"] for one in found] == ["0", "1", "0"]
    assert [one["LOCAL_WORLD_SIZE"] for one in found] == ["2", "2", "1"]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["2,5", "2,5", "0"]
    assert {one["WORLD_SIZE"] for one in found} == {"3"}
    assert {(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in found} == {("10.0.0.1", "4001")}
    assert _variables(seats[:1]) == [{}]  # it sees the GPU that Ray gave to its actor


@pytest.mark.slow
def test_a_gang_of_two_trains_as_two_processes_here(tmp_path):
    desk = Desk(tmp_path, tmp_path)
    write_rows(tmp_path / "chats.jsonl", rows_of(12))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    with cluster_of(2) as nodes:
        where = ("--executor", "ray", "--ray-address", nodes.address, "--threads", "1")
        code, said = desk.run(*where, "executor.gang_workers=2")
    assert code == 0, said
    here = ("--outputs", "here", "--num-processes", "2", "--threads", "1", "--device", "cpu")
    code, said = desk.run(*here)
    assert code == 0, said
    weights = [
        next(tmp_path.glob(f"{outputs}/store/train-*/model/adapter_model.safetensors")).read_bytes()
        for outputs in ("outputs", "here")
    ]
    assert weights[0] == weights[1]
