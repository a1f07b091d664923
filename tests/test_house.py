"""House rules: size, names, light imports, and that everything explains itself."""

import ast
import importlib
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import LEFT_OUT

from selectmoe_core import load
from selectmoe_core.config import Config
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.head import RecipeHead
from selectmoe_core.recipe.recipe import (
    OPTIONS,
    AuditConfig,
    CompareConfig,
    StageOptions,
)

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir())
MODULES = sorted([*(ROOT / "selectmoe_core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tools").glob("*.py")])
"""Programs beside the package: as short as its modules."""
FACE = ("cost", "data", "execution", "models", "selecting", "testing", "tokens", "training")
"""The modules beside the package itself that plugins may import."""
HEAVY = ("torch", "transformers", "datasets", "lm_eval", "peft", "accelerate", "numpy", "pyarrow")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


def top_imports(path):
    """Modules imported when the file is: not inside functions, not for type checkers."""
    stack = list(parsed(path).body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            stack.extend(child for child in ast.iter_child_nodes(node))


def all_imports(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_one_function_alone_sets_permissions():
    setting = [path for path in MODULES + SCRIPTS if ".chmod(" in path.read_text(encoding="utf-8")]
    assert [name_of(path) for path in setting] == ["selectmoe_core/runtime/writing.py"]


def test_there_is_something_to_look_at():
    assert len(MODULES) > 60
    assert len(SCRIPTS) > 30
    assert len(PLUGINS) >= 7


# --------------------------------------------------------------------------------------- size


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=name_of)
def test_no_module_is_long_and_each_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 350
    assert ast.get_docstring(ast.parse(text)), "the module has no docstring"
    assert path.name not in ("utils.py", "common.py", "helpers.py", "misc.py")


def test_functions_are_short():
    lengths = [length for path in MODULES for _, length in functions(path)]
    assert len(lengths) > 500
    assert statistics.median(lengths) <= 10
    long = [
        (length, name_of(path), name)
        for path in MODULES
        for name, length in functions(path)
        if length > 60
    ]
    assert not long
    assert sum(length > 30 for length in lengths) / len(lengths) < 0.05


# ------------------------------------------------------------------------------------ plugins


def test_every_plugin_folder_is_an_entry_point_and_nothing_else_is():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = project["entry-points"]["selectmoe"]
    assert set(table.values()) == {f"{path.name}.plugin" for path in PLUGINS}
    assert {f"selectmoe_{name}" for name in table} == {path.name for path in PLUGINS}


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda path: path.name)
def test_every_plugin_folder_has_the_same_files(folder):
    for name in ("__init__.py", "plugin.py", "config.py", "py.typed"):
        assert (folder / name).is_file()
    assert all(path.suffix in (".py", ".typed") or not path.is_file() for path in folder.iterdir())


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["plugin.py", "config.py", "__init__.py"])
def test_what_is_imported_early_imports_nothing_heavy(folder, name):
    heavy = [one for one in top_imports(folder / name) if one.partition(".")[0] in HEAVY]
    assert not heavy


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_the_core_and_itself_alone(folder):
    found = {
        module.partition(".")[0]
        for path in folder.rglob("*.py")
        for module in all_imports(path)
        if module.startswith("selectmoe_")
    }
    assert found
    assert found <= {"selectmoe_core", folder.name}


PUBLIC = ("selectmoe_core", *(f"selectmoe_core.{name}" for name in FACE))


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_public_names_alone(folder):
    taken = {
        (node.module, alias.name)
        for path in folder.rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("selectmoe_core")
        for alias in node.names
    }
    assert taken
    assert {module for module, _ in taken} <= set(PUBLIC)
    for module, name in taken:
        assert name in importlib.import_module(module).__all__, f"{module} does not offer {name}"


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_there(module):
    offered = importlib.import_module(module)
    assert len(set(offered.__all__)) == len(offered.__all__) > 3
    for name in offered.__all__:
        assert getattr(offered, name) is not None


def test_the_core_imports_no_plugin():
    own = {path.name for path in PLUGINS}
    for path in (ROOT / "selectmoe_core").rglob("*.py"):
        assert not {module.partition(".")[0] for module in all_imports(path)} & own, path


def test_importing_the_plugins_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from selectmoe_core.cli import call\n"
        "code = call(sys.argv[1:])\n"
        "print(code, [one for one in sys.modules if one in "
        f"{HEAVY[:6]!r}], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, *LEFT_OUT, "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("0 []")
    assert len(done.stdout.splitlines()) >= 10


def loaded_paths(path):
    """The part paths that a plugin.py gives to ``load``."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "load":
            (argument,) = node.args
            yield argument.value


LOADED = [(folder.name, path) for folder in PLUGINS for path in loaded_paths(folder / "plugin.py")]


def test_plugins_name_their_parts_with_load():
    assert len(LOADED) >= 16
    assert len({plugin for plugin, _ in LOADED}) >= 7


@pytest.mark.parametrize(("plugin", "path"), LOADED)
def test_every_part_that_a_plugin_names_is_there(plugin, path):
    assert path.startswith(f"{plugin}.")
    assert callable(load(path).resolve())


def listed(node, section):
    """The names that a docstring explains below ``Args:`` or ``Attributes:``."""
    _, found, rest = (ast.get_docstring(node) or "").partition(f"{section}:\n")
    return set(re.findall(r"^    (\w+):", re.split(r"\n(?=\S)", rest)[0], re.M)) if found else set()


def there(node):
    """The fields of a class, or the arguments of a function; none of them private."""
    if isinstance(node, ast.ClassDef):
        lines = (one.target for one in node.body if isinstance(one, ast.AnnAssign))
        names = {target.id for target in lines if isinstance(target, ast.Name)}
    else:
        of = node.args
        names = {one.arg for one in [*of.posonlyargs, *of.args, of.vararg, *of.kwonlyargs] if one}
    return {name for name in names - {"self", "cls"} if not name.startswith("_")}


def test_a_list_of_fields_or_arguments_is_complete_and_true():
    """A docstring may leave the list out, but a list that is there names each, and no other."""
    wrong, seen = [], 0
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            names = listed(node, "Attributes" if isinstance(node, ast.ClassDef) else "Args")
            seen += bool(names)
            if getattr(getattr(node, "args", None), "kwarg", None):
                names.discard(node.args.kwarg.arg)  # what others may pass need not be explained
            if names and there(node) and names != there(node):
                wrong.append((name_of(path), node.name, sorted(names ^ there(node))))
    assert seen > 100
    assert wrong == []


# --------------------------------------------------------------------------------- components

REGISTRY = Registry(load_plugins(LEFT_OUT[1::2]))
ENTRIES = list(REGISTRY)


def test_every_plugin_loads():
    assert LEFT_OUT == ()


def test_there_are_components_of_every_kind():
    assert len(ENTRIES) >= 14
    assert {entry.kind for entry in ENTRIES} == set(Kind)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.component.name}")
def test_a_component_and_its_options_explain_themselves(entry):
    component = entry.component
    assert isinstance(component, Component)
    assert component.name == component.name.lower()
    assert component.summary.endswith(".")
    assert len(component.summary) <= 100
    assert component.about.meaning or entry.kind is Kind.READER
    assert component.about.cost
    assert_described(component.config)


@pytest.mark.parametrize(
    "config",
    [RecipeHead, CompareConfig, AuditConfig, StageOptions, *OPTIONS.values()],
    ids=lambda c: c.__name__,
)
def test_the_recipes_own_keys_explain_themselves(config):
    assert_described(config)


def assert_described(config):
    for name, field in config.model_fields.items():
        assert field.description, f"{name} is not described"
        assert field.description.rstrip().endswith((".", ")")), name
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            assert_described(kind)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.component.name}")
def test_options_of_a_component_do_not_hide_the_stages_own(entry):
    from selectmoe_core.plugin.component import KINDS, Kind

    stages = [stage for stage, kind in KINDS.items() if kind is entry.kind]
    # No stage reads [trackers.NAME] or [executor].
    assert stages or entry.kind in (Kind.TRACKER, Kind.EXECUTOR)
    for stage in stages:
        own = set(OPTIONS.get(stage, StageOptions).model_fields)
        assert not own & set(entry.component.config.model_fields)


# ---------------------------------------------------------------------------------- no traces


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_importing_changes_nothing(path):
    """No configuration of logging and no environment at import; the worker is a program."""
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If):
            continue
        text = ast.unparse(node)
        assert "basicConfig" not in text
        assert "os.environ[" not in text
