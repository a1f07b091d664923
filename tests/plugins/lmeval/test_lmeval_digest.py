"""An evaluation is made again where anything changed that its tasks read."""

from pathlib import Path

import pytest
from lmeval_tasks import TASK

from selectmoe_core.store import FileHashes
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.plugin import selectmoe_evaluators
from selectmoe_lmeval.unseen import unseen

(COMPONENT,) = selectmoe_evaluators()


def digest(folder: Path, **options: object) -> list[str | None]:
    config = LmEvalConfig(tasks=("t",), include_path=(folder,), **options)
    hashes = FileHashes(None)
    return sorted(str(hashes.of_tree(path)) for path in COMPONENT.files(config) if path.exists())


@pytest.fixture
def places(tmp_path):
    """A folder of tasks, and data, modules and shared YAML outside of it."""
    for name in ("tasks", "data/deep", "code", "shared"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/q.jsonl").write_text("one\n")
    (tmp_path / "data/deep/r.jsonl").write_text("one\n")
    (tmp_path / "code/mod.py").write_text("A = 1\n")
    (tmp_path / "shared/base.yaml").write_text("process_docs: !function more.clean\n")
    (tmp_path / "shared/more.py").write_text("A = 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("{file: ../data/q.jsonl}", "data/q.jsonl"),
        ("{data_files: ROOT/data/q.jsonl}", "data/q.jsonl"),
        ("{data_files: {test: [../data/q.jsonl], x: ../data/deep/r.jsonl}}", "data/deep/r.jsonl"),
        ("{data_files: '../data/*/*.jsonl'}", "data/deep/r.jsonl"),
        ("{data_files: '../data/**/*.jsonl'}", "data/deep/new.jsonl"),
        ("{data_files: 'file://ROOT/data/q.jsonl'}", "data/q.jsonl"),
        ("{data_dir: ../data}", "data/deep/r.jsonl"),
        ("{data_dir: ../data}", "data/new.jsonl"),
        ("{}\ndataset_path: ../data", "data/q.jsonl"),
        ("{}\ninclude: ../shared/base.yaml", "shared/base.yaml"),
        ("{}\ninclude: [ROOT/shared/base.yaml]", "shared/more.py"),
        ("{}\ndoc_to_text: !function ROOT/code/mod.text", "code/mod.py"),
        ("{data_files: .hidden.jsonl}", "tasks/.hidden.jsonl"),
        ("{data_files: link/q.jsonl}", "data/q.jsonl"),
    ],
)
def test_what_a_task_names_counts_by_content(places, text, changed):
    (places / "tasks/.hidden.jsonl").write_text("one\n")
    (places / "tasks/link").symlink_to(places / "data")
    yaml = f"task: t\ndataset_path: json\ndataset_kwargs: {text}\n"
    (places / "tasks/t.yaml").write_text(yaml.replace("ROOT", str(places)))
    before = digest(places / "tasks")
    assert digest(places / "tasks") == before
    (places / "unrelated.txt").write_text("x")
    assert digest(places / "tasks") == before
    (places / changed).write_text("two\n")
    assert digest(places / "tasks") != before


def test_data_that_a_group_names_counts(places):
    (places / "tasks/t.yaml").write_text(TASK.format(name="t", file="../data/q.jsonl"))
    group = "group: g\ntask:\n  - task: t\n    dataset_kwargs: {data_files: ../data/deep/r.jsonl}\n"
    (places / "tasks/g.yaml").write_text(group)
    before = digest(places / "tasks")
    (places / "data/deep/r.jsonl").write_text("two\n")
    assert digest(places / "tasks") != before


def test_files_that_code_reads_count_where_the_recipe_names_them(places):
    (places / "tasks/t.yaml").write_text("task: t\ncustom_dataset: !function own.load\n")
    before = digest(places / "tasks"), digest(places / "tasks", task_data=(places / "data",))
    (places / "data/q.jsonl").write_text("two\n")
    assert digest(places / "tasks") == before[0]
    assert digest(places / "tasks", task_data=(places / "data",)) != before[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("custom_dataset: !function own.load", "the data that own.load reads (t.yaml)"),
        ("class: !function own.Task", "the data that own.Task reads (t.yaml)"),
        (
            "dataset_path: org/questions",
            "the dataset org/questions of the hub, without a revision (t.yaml)",
        ),
        (
            "dataset_path: json\ndataset_kwargs: {data_files: 'https://a.b/c'}",
            "https://a.b/c (t.yaml)",
        ),
        ("include: base.yaml", "the dataset org/base of the hub, without a revision (t.yaml)"),
        ("dataset_path: org/questions\ndataset_kwargs: {revision: abc}", None),
        ("dataset_path: json\ndataset_kwargs: {data_files: q.jsonl}", None),
        ("dataset_path: ../data", None),
    ],
)
def test_what_no_digest_covers_is_said(places, text, said):
    (places / "tasks/base.yaml").write_text("dataset_path: org/base\n")
    (places / "tasks/t.yaml").write_text(f"task: t\n{text}\n")
    config = LmEvalConfig(tasks=("t",), include_path=(places / "tasks",))
    assert list(unseen(config)) == ([said] if said else [])


def test_a_file_that_cannot_be_read_is_left_to_the_check_of_the_tasks(places):
    folder = places / "tasks"
    for name in ("t.yaml", "deep.yaml", "twice.yaml"):
        (folder / name).write_text("task: t\ndataset_path: a/b\n")
    (folder / "deep.yaml").write_text("[" * 5000)
    (folder / "twice.yaml").write_text("task: t\ninclude: twice.yaml\n")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "text.yaml").write_bytes(b"\xff\x00")
    config = LmEvalConfig(tasks=("t",), include_path=(folder,))
    assert list(unseen(config)) == ["the dataset a/b of the hub, without a revision (t.yaml)"]
    assert list(COMPONENT.files(config))


def test_a_bug_of_ours_is_not_taken_for_a_file_that_cannot_be_read(places, monkeypatch):
    def wrong(*_):
        raise AttributeError("a bug")

    (places / "tasks/t.yaml").write_text("task: t\n")
    config = LmEvalConfig(tasks=("t",), include_path=(places / "tasks",))
    for module in ("unseen", "task_files"):
        monkeypatch.setattr(f"selectmoe_lmeval.{module}.contents", wrong)
    with pytest.raises(AttributeError, match="a bug"):
        list(unseen(config))
    with pytest.raises(AttributeError, match="a bug"):
        list(COMPONENT.files(config))


def test_what_code_reads_is_covered_where_the_recipe_names_it(places):
    for name, field in (("t", "custom_dataset: !function own.load"), ("u", "dataset_path: a/b")):
        (places / f"tasks/{name}.yaml").write_text(f"task: {name}\n{field}\n")
    config = LmEvalConfig(
        tasks=("t", "u"), include_path=(places / "tasks",), task_data=(places / "data",)
    )
    assert list(unseen(config)) == ["the dataset a/b of the hub, without a revision (u.yaml)"]


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ("other", set()),
        ("arc_easy", set()),
        ("far", {"far"}),
        ("all", {"far", "near", "inside"}),
        ("every", {"far", "near", "inside"}),
        ("f*", {"far"}),
        ("tagged", {"near"}),
    ],
)
def test_only_the_tasks_in_use_count(places, asked, read):
    group = "group: all\ntask: [far, near, {task: own, dataset_path: org/inside}]\n"
    for name, text in {
        "far": "task: far\ndataset_path: org/far\n",
        "near": "task: near\ndataset_path: org/near\ntag: [tagged]\n",
        "other": "task: other\ndataset_path: json\n",
        "all": group,
        "every": "group: every\ntask: [all]\n",
    }.items():
        (places / f"tasks/{name}.yaml").write_text(text)
    config = LmEvalConfig(tasks=(asked,), include_path=(places / "tasks",))
    assert {text.split()[2].removeprefix("org/") for text in unseen(config)} == read


def test_a_broken_yaml_ends_no_plan(places):
    (places / "tasks/t.yaml").write_text("task: [\n")
    (places / "tasks/u.yaml").write_text("include: u.yaml\n")
    (places / "tasks/v.yaml").write_text("include: nowhere.yaml\n")
    (places / "tasks/w.yaml").write_bytes(b"\xff\xfe\x00")
    assert digest(places / "tasks") == digest(places / "tasks")
    assert not list(unseen(LmEvalConfig(tasks=("t", "u"), include_path=(places / "tasks",))))
