"""The trackers: TensorBoard for real, the others as far as this machine has them."""

from pathlib import Path

import pytest

from selectmoe_core import TrackedResult, TrackedRun

pytest.importorskip("tensorboard")

from selectmoe_trackers.config import (
    MlflowConfig,
    TensorBoardConfig,
    TrackioConfig,
    WandbConfig,
)
from selectmoe_trackers.trackers import (
    Mlflow,
    TensorBoard,
    Trackio,
    Wandb,
    plain,
    run_name,
)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "outputs" / "mine" / "2026-01-31" / "10-20-30"
    folder.mkdir(parents=True)
    options = {"seed": 3, "score.use": "router", "evaluate.tasks": ["a", "b"], "x": "y" * 999}
    return TrackedRun("mine", folder, options)


def follow(tracker, run, error=""):
    """As a run would: two nodes whose steps begin at 1 each, the time of one, the result."""
    report = run.folder / "report.md"
    report.write_text("# Report of the run\n")
    tracker.start(run)
    for node in ("train/a-1", "train/b-1"):
        for step in (1, 2):
            tracker.log(node, step, {"loss": 3.0 - step})
    tracker.log("train/a-1", 0, {"seconds": 5.5})
    verdict = () if error else ("a beats random", "b does not")
    tracker.end(TrackedResult(error, verdict, {"a/arc_easy": 0.75}, [report]))


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def texts(found):
    tags = found.Tags()["tensors"]
    return {
        tag.removesuffix("/text_summary"): found.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in tags
    }


def test_tensorboard_has_curves_times_results_and_the_report(run):
    follow(TensorBoard(TensorBoardConfig()), run)
    found = events(run.folder / "tensorboard")
    curve = [(point.step, point.value) for point in found.Scalars("train/b-1/loss")]
    assert curve == [(1, 2.0), (2, 1.0)]
    assert [point.value for point in found.Scalars("train/a-1/seconds")] == [5.5]
    assert [point.value for point in found.Scalars("result/a/arc_easy")] == [0.75]
    written = texts(found)
    assert written["verdict"] == "- a beats random\n- b does not"
    assert written["report.md"] == "# Report of the run\n"
    assert "| score.use | router |" in written["recipe"]


def test_tensorboard_can_collect_runs_in_one_folder(run, tmp_path):
    follow(TensorBoard(TensorBoardConfig(folder=tmp_path / "all")), run, error="no memory")
    assert texts(events(tmp_path / "all" / run_name(run)))["verdict"] == "failed: no memory"


def test_options_are_numbers_and_short_text():
    options = {"a": 1, "b": True, "c": 0.5, "d": ["x", 2], "e": "z" * 999, "f": {"g": Path("h")}}
    found = plain(options)
    assert found == {
        "a": 1, "b": True, "c": 0.5, "d": '["x", 2]', "e": "z" * 250, "f": '{"g": "h"}',
    }  # fmt: skip


def test_wandb_offline_keeps_a_run_in_its_folder(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    follow(Wandb(WandbConfig()), run)
    [kept] = run.folder.glob("wandb/offline-run-*")
    report = kept / "files" / "report.md"
    assert report.read_text() == "# Report of the run\n"
    assert not report.is_symlink()


def test_mlflow_keeps_curves_and_the_report_below_the_outputs(run, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    follow(Mlflow(MlflowConfig()), run)
    client = mlflow.MlflowClient(f"sqlite:///{run.folder.parents[2] / 'mlflow.db'}")
    [experiment] = client.search_experiments(filter_string="name = 'selectmoe'")
    [kept] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(kept.info.run_id, "train/b-1/loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert kept.data.params["score.use"] == "router"
    names = {file.path for file in client.list_artifacts(kept.info.run_id)}
    assert names == {"verdict.md", "report.md"}


def test_trackio_follows_a_run(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    follow(Trackio(TrackioConfig()), run)
    assert list((tmp_path / "trackio").rglob("selectmoe*"))


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_run_from_the_command_line_keeps_its_result_on_stdout(
    project, monkeypatch, tmp_path, name
):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    library = pytest.importorskip(name)
    plain_run = project.run()
    said = project.run(f"trackers.{name}={{}}")
    assert (plain_run.code, said.code) == (0, 0), said.err
    result = said.out.partition("Report:")[0]
    assert result == plain_run.out.partition("Report:")[0]
    assert "letters" in result
    last = project.runs()[-1]
    kept = {
        "tensorboard": last.rglob("events.out.tfevents*"),
        "wandb": last.glob("wandb/offline-run-*/*.wandb"),
        "mlflow": last.parents[2].glob("mlflow.db"),
    }
    if name == "trackio":  # it reads its folder from the environment when it is imported
        kept[name] = Path(library.utils.TRACKIO_DIR).glob("selectmoe.db")
    assert list(kept[name])
