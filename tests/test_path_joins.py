"""Paths that are built from data go through ``selectmoe_core.paths``, or were looked at here.

A name from a recipe, an index, an archive or a row that is joined to a folder as it is can lead out
of that folder: ``..``, an absolute path, a link. ``inside`` and ``plain_name`` refuse that.
"""

import ast
import re

import pytest
from test_house import MODULES, name_of, parsed

PATHS = (
    "folder",
    "path",
    "root",
    "out",
    "dir",
    "place",
    "here",
    "home",
    "parent",
    "outputs",
    "store",
    "base",
)
"""Words in the left side of a ``/`` that say that it is a path and no number."""
CHECKED = ("inside", "plain_name")


def is_path(node: ast.expr) -> bool:
    text = ast.unparse(node).lower()
    return "path" in text or any(word in re.split(r"\W|_", text) for word in PATHS)


def is_fixed(node: ast.expr) -> bool:
    """Return whether what is joined stands in the code: text, a constant, digits in a text."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.JoinedStr):
        return all(is_fixed(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        # A number with a width, as in f"part-{number:05d}.parquet", is digits alone.
        return is_fixed(node.value) or (node.format_spec is not None and "d" in ast.unparse(node))
    name = ast.unparse(node).rpartition(".")[2]
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in CHECKED
    return isinstance(node, ast.Name | ast.Attribute) and name.isupper()


def joins(tree: ast.AST, function: str = "") -> list[tuple[str, str]]:
    """Return the joins of a path with something that is not fixed: the function, the expression."""
    found = []
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else function
        divided = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        if divided and is_path(node.left) and not is_fixed(node.right):
            found.append((inner, ast.unparse(node)))
        if isinstance(node, ast.Call) and _joins(node):
            found += [(inner, ast.unparse(node))]
        found += joins(node, inner)
    return found


def _joins(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    arguments = call.args[1:] if name == "os.path.join" else call.args
    named = name == "os.path.join" or (name.endswith(".joinpath") and bool(call.args))
    return named and not all(is_fixed(argument) for argument in arguments)


def all_joins() -> set[tuple[str, str, str]]:
    return {
        (name_of(path), function, text)
        for path in MODULES
        for function, text in joins(parsed(path))
        if name_of(path) != "selectmoe_core/paths.py"
    }


OWN = "a name that our code chose"
LISTED = "a name that was listed in that folder"
INDEX = "names of an index or a checkpoint, plain since `read_index`"
NAMED = "names of scores and the like, plain since the recipe"
READ = "only read, by design wherever the user says"
REVIEWED = {
    ("plugins/selectmoe_lmeval/results.py", "write_results"): OWN,
    ("plugins/selectmoe_lmeval/task_files.py", "_existing"): READ,
    ("plugins/selectmoe_lmeval/task_files.py", "_installed"): READ,
    ("plugins/selectmoe_lmeval/task_files.py", "contents"): READ,
    ("plugins/selectmoe_lmeval/task_files.py", "file"): READ,
    ("plugins/selectmoe_lmeval/unseen.py", "unseen_data"): READ,
    ("plugins/selectmoe_nano/plugin.py", "selectmoe_bundled_models"): OWN,
    ("plugins/selectmoe_olmoe/convert/checkpoint.py", "_check_index"): INDEX,
    ("plugins/selectmoe_olmoe/convert/checkpoint.py", "open"): INDEX,
    ("plugins/selectmoe_olmoe/convert/converter.py", "convert"): INDEX,
    ("plugins/selectmoe_olmoe/convert/shards.py", "_begin"): INDEX,
    ("plugins/selectmoe_olmoe/convert/shards.py", "_copy_small_files"): LISTED,
    ("plugins/selectmoe_olmoe/convert/shards.py", "_planned"): INDEX,
    ("plugins/selectmoe_olmoe/convert/verify.py", "_tensor"): INDEX,
    ("plugins/selectmoe_olmoe/convert/verify.py", "compare_tensors"): INDEX,
    ("plugins/selectmoe_olmoe/convert/verify.py", "same"): INDEX,
    ("plugins/selectmoe_olmoe/warmup/trainer.py", "packed_objective"): "a division",
    ("plugins/selectmoe_readers/hub.py", "_saved"): READ,
    ("plugins/selectmoe_readers/less.py", "_found"): OWN,
    ("plugins/selectmoe_readers/less.py", "present"): READ,
    ("selectmoe_core/cli/export.py", "command"): OWN,
    ("selectmoe_core/compare/runs.py", "_read"): OWN,
    (
        "selectmoe_core/compare/writing.py",
        "write_recipes",
    ): "names of strategies, plain since the recipe",
    ("selectmoe_core/config.py", "user_path"): READ,
    ("selectmoe_core/models/files.py", "check_folder"): OWN,
    ("selectmoe_core/models/hub.py", "is_whole"): INDEX,
    ("selectmoe_core/models/hub.py", "snapshot"): "slashes of the hub id are replaced",
    ("selectmoe_core/models/references.py", "named_base"): READ,
    ("selectmoe_core/models/models.py", "tokenizer"): OWN,
    ("selectmoe_core/recipe/absolute_paths.py", "absolute"): READ,
    ("selectmoe_core/report/record.py", "_node"): "the store beside a run's folder; only read",
    ("selectmoe_core/remote/cache.py", "_fetch_run"): "names that `Objects.sizes` has checked",
    ("selectmoe_core/remote/cache.py", "local_outputs"): OWN,
    ("selectmoe_core/remote/store.py", "fetch"): OWN,
    ("selectmoe_core/remote/store.py", "names_of"): "names that `Objects.sizes` has checked",
    ("selectmoe_core/remote/store.py", "publish"): LISTED,
    ("selectmoe_core/runner/joining.py", "__init__"): "the recipe's name, plain since the recipe",
    ("selectmoe_core/runtime/uses.py", "using"): OWN,
    ("selectmoe_core/stages/scoring/driver.py", "_make_missing"): "names of `names_of`, checked",
    ("selectmoe_core/stages/scoring/left.py", "shards_left"): "names of `names_of`, checked",
    ("selectmoe_core/runner/crew.py", "start"): NAMED,
    ("selectmoe_core/runner/run_folder.py", "link"): NAMED,
    (
        "selectmoe_core/runner/sample_rows.py",
        "save_sample",
    ): NAMED,
    ("selectmoe_core/runner/launch.py", "spec_path"): NAMED,
    (
        "selectmoe_core/runner/run_folder.py",
        "new_folder",
    ): "the recipe's name, plain since the recipe",
    ("selectmoe_core/selections/export.py", "export"): OWN,
    ("selectmoe_core/stages/code.py", "_path"): OWN,
    ("selectmoe_core/store.py", "damage"): "names of a manifest; only their sizes are looked at",
    ("selectmoe_core/store.py", "folder"): OWN,
    ("selectmoe_core/store.py", "lock_file"): OWN,
    ("selectmoe_core/store.py", "unused"): "one of the folders' own names; only shown",
    ("selectmoe_core/report/html.py", "_files"): OWN,
    ("selectmoe_core/testing/executors.py", "check_executor"): OWN,
    ("selectmoe_core/testing/filters.py", "marked"): OWN,
    ("selectmoe_core/testing/noting_program.py", "main"): OWN,
    ("selectmoe_core/testing/pools.py", "_encode"): OWN,
    ("selectmoe_core/testing/scorers.py", "bench"): OWN,
    ("selectmoe_core/testing/scorers.py", "check_combination"): OWN,
    ("selectmoe_core/testing/scorers.py", "score"): OWN,
    ("selectmoe_core/testing/selectors.py", "table"): OWN,
    ("selectmoe_core/tokens/encoding.py", "holds"): OWN,
    ("selectmoe_core/tokens/files.py", "__init__"): OWN,
    ("selectmoe_core/tokens/files.py", "_reach"): OWN,
    ("selectmoe_core/tokens/files.py", "cut"): OWN,
    ("selectmoe_core/training/checkpoint_files.py", "is_whole"): OWN,
    ("selectmoe_core/training/checkpoints.py", "on_save"): OWN,
    ("selectmoe_core/cli/new_plugin.py", "command"): OWN,
    ("selectmoe_core/cli/run.py", "_next_commands"): OWN,
    ("selectmoe_core/models/references.py", "model_folder"): OWN,
    ("selectmoe_core/new_plugin/__init__.py", "plugin_files"): OWN,
    ("selectmoe_core/new_plugin/__init__.py", "write_plugin"): "words and dashes, checked there",
    ("selectmoe_core/testing/converters.py", "_check_model"): OWN,
    ("selectmoe_core/testing/trainers.py", "check_trainer"): OWN,
    ("selectmoe_core/testing/embedders.py", "check"): OWN,
    ("selectmoe_core/training/keeping.py", "_write"): OWN,
}
"""Functions whose joins were looked at, and why a name cannot lead out of its folder there."""


def test_every_join_of_a_name_is_checked_or_was_looked_at():
    new = {join for join in all_joins() if join[:2] not in REVIEWED}
    assert not new, (
        "join names and paths that come from data with `inside`, or check them with `plain_name` "
        f"where they enter; what is safe for another reason goes into REVIEWED: {sorted(new)}"
    )


def test_what_was_looked_at_is_still_there():
    assert set(REVIEWED) == {join[:2] for join in all_joins()}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("folder / name", True),
        ("Path('x') / table['shard']", True),
        ("self.folder / f'{name}.json'", True),
        ("out.joinpath(name)", True),
        ("os.path.join(root, name)", True),
        ("base_folder / recipe.name / 'x'", True),
        ("folder / 'config.json'", False),
        ("folder / CONFIG", False),
        ("folder / f'part-{number:05d}.parquet'", False),
        ("inside(folder, name, where='x')", False),
        ("folder / plain_name(name, where='x')", False),
        ("total / count", False),
    ],
)
def test_joins_are_found(code, found):
    tree = ast.parse(f"def f(folder, name):\n    return {code}\n")
    assert bool(joins(tree)) is found
