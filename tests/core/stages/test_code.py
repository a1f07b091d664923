"""The digest of code, on a copy of the packages: what changes it and what does not."""

import ast
import shutil
from functools import partial
from pathlib import Path

import pytest

from selectmoe_core import load
from selectmoe_core.plan.digests import GIVEN
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.stages import MODULES
from selectmoe_core.stages.code import BORDER, Code, roots_of
from selectmoe_core.stages.code_parts import parts_of

ROOT = Path(__file__).parents[3]
PACKAGES = ("selectmoe_core", "selectmoe_router", "selectmoe_olmoe", "selectmoe_lm")
STAGES, DATA, FUSED = "selectmoe_core/stages", "selectmoe_core/data", "selectmoe_olmoe/fused"
OF_TOKENS = [target for need in (Need.MODEL, Need.TOKENS) for target in GIVEN[need]]
ROOTS = {
    "select": [(MODULES["select"], "run")],
    "warmup": [
        (MODULES["warmup"], "run"),
        ("selectmoe_olmoe.warmup.parts", "SelectMoeContrastive"),
        *OF_TOKENS,
    ],
    "score": [
        (MODULES["score"], "run"),
        ("selectmoe_router.scorer", "RouterScorer"),
        ("selectmoe_olmoe.family", "_register_olmoe"),
        *OF_TOKENS,
    ],
    "ifd": [(MODULES["score"], "run"), ("selectmoe_lm.ifd", "IfdScorer"), *OF_TOKENS],
    "train": [(MODULES["train"], "run"), *OF_TOKENS],
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the packages, for tests that change it and change it back."""
    tmp_path = tmp_path_factory.mktemp("packages")
    for name in PACKAGES:
        source = ROOT / name if name == "selectmoe_core" else ROOT / "plugins" / name
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("models", "*.pyc"))
    shutil.copytree(ROOT / "selectmoe_core" / "models", tmp_path / "selectmoe_core" / "models")
    return tmp_path


def digests(folder: Path) -> dict[str, str]:
    code = Code({name: folder / name for name in PACKAGES}, folder / "memory.json")
    found = {stage: code.digest(roots) for stage, roots in ROOTS.items()}
    code.save()
    return found


def edited(folder: Path, file: str, old: str, new: str) -> set[str]:
    """Return the stages whose digest an edit changes; the edit is taken back."""
    path, before = folder / file, digests(folder)
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file}: {text.count(old)} x {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")
    after = digests(folder)
    path.write_text(text, encoding="utf-8")
    return {stage for stage in ROOTS if before[stage] != after[stage]}


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            f"{STAGES}/select.py",
            "raise StageError(\"the selector returned a position twice\")",
            "pass",
            {"select"},
        ),
        (
            f"{DATA}/selection.py",
            'columns=["row"]).column(0)',
            'columns=["row"]).column(0)[::-1]',
            {"warmup", "train"},
        ),
        (f"{DATA}/selection.py", "FORMAT = 2", "FORMAT = 3", {"select", "warmup", "train"}),
        (f"{DATA}/scores.py", "FORMAT = 1", "FORMAT = 2", {"select", "score", "ifd"}),
        (f"{DATA}/pool.py", "FORMAT = 2", "FORMAT = 3", set(ROOTS)),
        # Kernels are imported within functions, or by what these import.
        (f"{FUSED}/kernels.py", "def silu_times(", "def _silu_times(", {"score", "warmup"}),
        (f"{FUSED}/training_kernels.py", "def cross_entropy(", "def _loss(", {"warmup"}),
        # A model type is registered by a function that imports its classes.
        ("selectmoe_olmoe/model/modeling.py", "class SelectMoeForCausalLM(", "class SelectMoe(",
         {"score", "warmup"}),
        ("selectmoe_router/kernels.py", "def of_tokens(", "def _of_tokens(", {"score"}),
        (f"{STAGES}/token_cache.py", '"encoded"', '"made"', set(ROOTS) - {"select"}),
        # Another component of the same plugin.
        ("selectmoe_lm/perplexity.py", "class PerplexityScorer", "class Perplexity", set()),
        ("selectmoe_lm/ifd.py", "class IfdScorer", "class Ifd", {"ifd"}),
        ("selectmoe_lm/config.py", "class PerplexityConfig", "class Perplexity", set()),
        ("selectmoe_lm/plugin.py", "def _perplexity(", "def _loss(", set()),
        # Behind the border.
        ("selectmoe_core/report/markdown.py", "import re\n", "import re, os\n", set()),
        ("selectmoe_core/cli/__init__.py", "INTERRUPTED = 130", "INTERRUPTED = 131", set()),
        ("selectmoe_core/plan/node.py", '"selected", "base"', '"chosen", "base"', set()),
    ],
)  # fmt: skip
def test_an_edit_counts_for_the_stages_that_run_it(copy, file, old, new, expected):
    assert edited(copy, file, old, new) == expected


class _OtherTexts(ast.NodeTransformer):
    """Changes every docstring, those of fields too."""

    changed = 0

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            self.changed += 1
            return ast.Expr(ast.Constant("Other words."))
        return node


def test_no_docstring_and_no_comment_counts(copy, tmp_path):
    before, texts = digests(copy), _OtherTexts()
    other = shutil.copytree(copy, tmp_path / "other", ignore=shutil.ignore_patterns("memory*"))
    for path in other.rglob("*.py"):
        tree = texts.visit(ast.parse(path.read_text(encoding="utf-8")))
        # Written anew: no comment, no blank line and no line break is where it was.
        path.write_text(f"# a comment\n\n{ast.unparse(ast.fix_missing_locations(tree))}\n")
    assert texts.changed > 500
    assert digests(other) == before


def test_every_stage_reads_what_it_is_known_to_read():
    code = Code({name: ROOT / name for name in ("selectmoe_core",)})
    modules = {
        stage: {module for module, _ in code.reach([(home, "run")])}
        for stage, home in MODULES.items()
    }
    assert "selectmoe_core.data.pool_writer" in modules["pool"]
    assert "selectmoe_core.stages.scoring.pipeline" in modules["score"]
    assert "selectmoe_core.data.scores" not in modules["train"] | modules["pool"]
    for stage, found in modules.items():
        assert MODULES[stage] in found
        assert not [module for module in found if module.startswith(BORDER)], stage


def test_the_border_names_modules_that_exist():
    for module in BORDER:
        path = ROOT.joinpath(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


def test_the_runner_carries_out_the_modules_that_are_named():
    from selectmoe_core.runner import execute

    stages = getattr(execute, "STAGES", None)
    assert stages is not None
    assert {stage: run.__module__ for stage, run in stages.items()} == MODULES
    assert {run.__name__ for run in stages.values()} == {"run"}


# ----------------------------------------------------------------------------- small packages


@pytest.fixture
def small(tmp_path):
    """Writes a package of its own and returns the digest of a function in it."""

    def digest(**files: str) -> str:
        folder = tmp_path / "pkg"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "sub").mkdir(parents=True)
        for file in ("__init__", "sub/__init__"):
            (folder / f"{file}.py").write_text("")
        places = {"inner": "sub/x", "init": "sub/__init__"}
        for file, text in files.items():
            (folder / f"{places.get(file, file)}.py").write_text(text)
        return Code({"pkg": folder}).digest([("pkg.main", "run")])

    return digest


@pytest.mark.parametrize(
    "main",
    [
        "def run():\n    from pkg.other import value\n    return value",
        "def run():\n    import pkg.other\n    return pkg.other.value",
        "def run():\n    from . import other\n    return other.value",
        "from .other import value\ndef run(): return value",
        "from .other import value as v\nTABLE = {'a': v}\ndef run(): return TABLE",
        "from .other import *\ndef run(): return value",
        "from pkg import other as o\nclass A:\n    x = o\ndef run(): return A()",
        "from importlib import import_module\ndef run(): return import_module('pkg.other').value",
        "try:\n    from pkg.other import value\nexcept ImportError:\n    value = 0\n"
        "def run(): return value",
        "from functools import cache\n@cache\ndef helper():\n    from .other import value\n"
        "    return value\ndef run(): return helper()",
    ],
)
def test_however_a_module_is_imported_it_counts(small, main):
    one, other = (small(main=main, other=f"value = {number}\n") for number in (1, 2))
    assert one != other
    assert one == small(main=main, other="# said\nvalue = 1  # more\n")


@pytest.mark.parametrize(
    "main",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .other import value\n"
        "def run(): pass",
        "from .other import value\ndef run(): pass\ndef further(): return value",
        "import pkg.sub\ndef run(): pass",
    ],
)
def test_what_is_not_run_does_not_count(small, main):
    assert small(main=main, other="value = 1") == small(main=main, other="value = 2")


def test_a_name_that_a_package_passes_on_counts_where_it_is_defined(small):
    main = "from pkg.sub import value\ndef run(): return value"
    for init in ("from pkg.other import value\n", LAZY):
        digest = partial(small, main=main, init=init)
        assert digest(other="value = 1") != digest(other="value = 2")
        assert digest(other="value = 1") == digest(other="value = 1\nunused = 2")


LAZY = """
from selectmoe_core.lazy import lazy_names
__getattr__ = lazy_names(__name__, {"pkg.other": "value another"})
"""


def test_what_an_import_runs_counts(small):
    main, inner = "from pkg.sub.x import value\ndef run(): return value", "value = {}\n"
    plain = small(main=main, inner=inner)
    assert plain != small(main=main, inner=inner + "value['a'] = 1\n")
    assert plain != small(main=main, inner=inner + "print(3)\n")
    assert plain != small(main=main, inner=inner, init="import os\nos.environ['A'] = ''\n")
    assert plain == small(main=main, inner=inner + "other = 3\n")


def test_a_tree_does_not_depend_on_layout():
    texts = b"def f(a, b):\n    return a + b  # sum\n", b"def f(a,\n      b): return (a + b)"
    one, other = (parts_of(text, "m", package=False) for text in texts)
    assert one == other
    assert one != parts_of(b"def f(a, b): return a - b", "m", package=False)


def test_roots_are_found_for_whatever_can_be_called():
    class Local:
        def __call__(self):
            return 0

    here = __name__
    assert list(roots_of(digests)) == [(here, "digests")]
    assert list(roots_of(_OtherTexts.visit_Expr)) == [(here, "_OtherTexts")]
    assert list(roots_of(Local())) == [(here, "test_roots_are_found_for_whatever_can_be_called")]
    assert list(roots_of(partial(edited, key=digests))) == [(here, "edited"), (here, "digests")]
    assert list(roots_of(LAMBDA)) == [(here, "")]
    assert list(roots_of(load("some.module:Part"))) == [("some.module", "Part")]


LAMBDA = lambda: 0  # noqa: E731


def test_what_is_remembered_is_used_and_a_changed_file_is_read_again(copy, tmp_path, monkeypatch):
    from selectmoe_core.stages import code as module

    memory, packages = tmp_path / "memory.json", {name: copy / name for name in PACKAGES}
    first = Code(packages, memory)
    wanted = first.digest(ROOTS["score"])
    first.save()
    with monkeypatch.context() as patch:
        patch.setattr(module, "parts_of", lambda *_, **__: pytest.fail("read again"))
        assert Code(packages, memory).digest(ROOTS["score"]) == wanted
    path = copy / "selectmoe_router" / "kernels.py"
    text = path.read_text()
    path.write_text(text.replace("def of_tokens(", "def of_tokens_("))
    assert Code(packages, memory).digest(ROOTS["score"]) != wanted
    path.write_text(text)
    memory.write_text("{ damaged")
    assert Code(packages, memory).digest(ROOTS["score"]) == wanted


def test_nothing_heavy_is_imported_to_read_code(tmp_path):
    import subprocess
    import sys

    program = (
        "import sys; from selectmoe_core.stages.code import Code; "
        f"Code.installed(['selectmoe_router']).digest({ROOTS['score']!r}); "
        "assert not {'torch', 'numpy', 'pyarrow', 'selectmoe_router'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
