"""Parts that are imported when they are built: what is found, when, and what is wrong."""

import sys

import pytest

from selectmoe_core import load
from selectmoe_core.errors import PluginError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A plugin whose modules a test writes."""
    folder = tmp_path / "selectmoe_lazytest"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("selectmoe_lazytest")]:
        del sys.modules[name]


def test_the_module_is_imported_when_the_part_is_built(package):
    (package / "parts.py").write_text(
        "class Doubler:\n    def __init__(self, config):\n        self.twice = 2 * config\n"
    )
    build = load("selectmoe_lazytest.parts:Doubler")
    assert "selectmoe_lazytest.parts" not in sys.modules
    assert build(21).twice == 42
    assert "selectmoe_lazytest.parts" in sys.modules


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("selectmoe_lazytest.part:Doubler", "there is no module 'selectmoe_lazytest.part'"),
        ("selectmoe_lazytest.sub.part:Doubler", "there is no module 'selectmoe_lazytest.sub'"),
        ("selectmoe_lazytset.parts:Doubler", "there is no module 'selectmoe_lazytset'"),
        ("selectmoe_lazytest.parts:Dubler", "has no class or function 'Dubler'"),
        ("selectmoe_lazytest.parts:FACTOR", "has no class or function 'FACTOR'"),
    ],
)
def test_a_wrong_path_names_plugin_and_path(package, path, what):
    (package / "parts.py").write_text("FACTOR = 2\n\n\nclass Doubler:\n    pass\n")
    build = load(path)
    with pytest.raises(PluginError) as caught:
        build(1)
    assert f"plugin '{path.partition('.')[0]}' cannot build '{path}'" in str(caught.value)
    assert what in str(caught.value)
    assert "plugin.py" in caught.value.hint


@pytest.mark.parametrize("text", ["import no_such_library", "raise ImportError('of a driver')"])
def test_an_error_within_the_module_is_raised_as_it_is(package, text):
    (package / "parts.py").write_text(text)
    with pytest.raises(ImportError, match=r"no_such_library|of a driver"):
        load("selectmoe_lazytest.parts:Doubler")(1)


@pytest.mark.parametrize(
    "path", ["", "parts", "parts:", ":Part", "a.b.Part", "a..b:Part", "a/b:Part", "a:b:c", "a:b.c"]
)
def test_a_path_of_another_form_is_refused_at_once(path):
    with pytest.raises(PluginError, match="does not name a class or factory"):
        load(path)
