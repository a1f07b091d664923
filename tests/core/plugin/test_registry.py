"""Names to components."""

from pathlib import Path

import pytest

from selectmoe_core import Command, Component, Config, hookimpl
from selectmoe_core.errors import PluginError, RecipeError
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry


class Nothing(Config):
    """Does nothing.

    And says more than that.
    """


class Fake:
    def __init__(self, *names, requires=(), models=None, tasks=None):
        self.names, self.requires = names, requires
        self.models, self.tasks = models or {}, tasks or {}

    @hookimpl
    def selectmoe_scorers(self):
        return [Component(name, Nothing, list, requires=self.requires) for name in self.names]

    @hookimpl
    def selectmoe_selectors(self):
        yield from (Component(f"{name}-cut", Nothing, list) for name in self.names)

    @hookimpl
    def selectmoe_bundled_models(self):
        return self.models

    @hookimpl
    def selectmoe_bundled_tasks(self):
        return self.tasks


def test_components_come_in_the_order_of_the_chain_and_of_their_names(manager):
    manager.register(Fake("b", "a"), name="one")
    found = [(str(entry.kind), entry.component.name) for entry in Registry(manager)]
    assert found == [("scorer", "a"), ("scorer", "b"), ("selector", "a-cut"), ("selector", "b-cut")]


def test_a_component_is_found_with_its_plugin(manager):
    manager.register(Fake("a"), name="one")
    entry = Registry(manager).get(Kind.SCORER, "a", where="[score]")
    assert (entry.plugin, entry.component.summary) == ("one", "Does nothing.")


def test_two_plugins_may_not_offer_one_name(manager):
    manager.register(Fake("twice"), name="one")
    manager.register(Fake("twice"), name="two")
    with pytest.raises(PluginError, match="'twice' is offered by two plugins: ") as caught:
        Registry(manager)
    assert "--disable-plugin" in caught.value.hint
    assert {"one", "two"} <= set(caught.value.hint.replace("(or ", "").rstrip(")").split())


def test_one_name_may_stand_for_two_kinds(manager):
    class Both:
        @hookimpl
        def selectmoe_readers(self):
            return [Component("same", Nothing, list)]

        @hookimpl
        def selectmoe_scorers(self):
            return [Component("same", Nothing, list)]

    manager.register(Both(), name="both")
    assert len(list(Registry(manager))) == 2


@pytest.mark.parametrize("offered", ["a string", Nothing, None])
def test_what_is_not_a_component_is_told(manager, offered):
    class Wrong:
        @hookimpl
        def selectmoe_readers(self):
            return [offered]

    manager.register(Wrong(), name="wrong")
    with pytest.raises(PluginError, match=r"selectmoe_readers offers .*, which is not a Component"):
        Registry(manager)


def test_an_unknown_name_suggests_a_known_one_of_its_kind(manager):
    manager.register(Fake("entropy"), name="one")
    with pytest.raises(RecipeError, match=r"\[score\]: there is no scorer named") as caught:
        Registry(manager).get(Kind.SCORER, "entrpy", where="[score]")
    assert caught.value.hint == "did you mean 'entropy'?"
    with pytest.raises(RecipeError) as caught:
        Registry(manager).get(Kind.READER, "entropy", where="[pool]")
    assert caught.value.hint == "the readers: none"


def test_a_missing_extra_is_named_without_importing_it(manager):
    manager.register(Fake("a", requires=("nowhere_at_all.part",)), name="one")
    registry = Registry(manager)
    with pytest.raises(RecipeError, match=r"needs the package 'nowhere_at_all\.part'") as caught:
        registry.get(Kind.SCORER, "a", where="[score]")
    assert "pip install" in caught.value.hint
    assert registry.get(Kind.SELECTOR, "a-cut", where="[select]")


def test_bundled_models_and_tasks_of_all_plugins_are_merged(manager, tmp_path):
    manager.register(Fake(models={"m": tmp_path}, tasks={"t": tmp_path}), name="one")
    manager.register(Fake(models={"n": tmp_path}), name="two")
    registry = Registry(manager)
    assert set(registry.models.bundled) == {"m", "n"}
    assert dict(registry.bundled_tasks) == {"t": tmp_path}


def test_a_bundled_name_may_not_be_given_twice(manager):
    manager.register(Fake(models={"m": Path("a")}), name="one")
    manager.register(Fake(models={"m": Path("b")}), name="two")
    with pytest.raises(PluginError, match="'m' is offered by two plugins"):
        _ = Registry(manager).models


class Commanding:
    def __init__(self, *offered):
        self.offered = offered

    @hookimpl
    def selectmoe_commands(self):
        return self.offered


def test_commands_come_by_name_with_their_plugin(manager):
    greet, leave = Command("greet", "Greet.", "a:b"), Command("take-leave", "Leave.", "a:c")
    manager.register(Commanding(greet), name="one")
    manager.register(Commanding(leave), name="two")
    found = Registry(manager).commands
    assert {name: (offered.command, offered.plugin) for name, offered in found.items()} == {
        "greet": (greet, "one"),
        "take-leave": (leave, "two"),
    }


@pytest.mark.parametrize(
    "offered",
    ["greet", Command("Greet", "", "a:b"), Command("", "", "a:b"), Command("a b", "", "")],
)
def test_what_is_no_command_is_an_error_that_names_the_plugin(manager, offered):
    manager.register(Commanding(offered), name="one")
    with pytest.raises(PluginError, match="plugin 'one': selectmoe_commands offers"):
        Registry(manager).commands  # noqa: B018


def test_one_plugin_may_not_offer_a_command_twice(manager):
    manager.register(Commanding(*2 * [Command("greet", "Greet.", "a:b")]), name="one")
    with pytest.raises(PluginError, match="'greet' is offered twice"):
        Registry(manager).commands  # noqa: B018


class TakesTwo:
    def __init__(self, config, further):
        pass


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "Has Space"}, "its name must be lower-case words joined by dashes"),
        ({"name": "../up"}, "its name must be"),
        ({"name": 3}, "its name must be"),
        (
            {"config": dict},
            "config must be a subclass of selectmoe_core.Config, got <cl",
        ),
        ({"config": Nothing()}, "config must be a subclass"),
        ({"build": None}, r"build must be a function, called as build\(config\), got None"),
        ({"build": "a.module"}, "build must be a function"),
        ({"build": TakesTwo}, r"build cannot be called as build\(config\)"),
        ({"needs": frozenset()}, r"needs must be a function, called as needs\(config\)"),
        ({"needs": TakesTwo}, r"needs cannot be called as needs\(config\)"),
        ({"cost": lambda config: None}, r"cost cannot be called as cost\(config, workload\)"),
        ({"cost": 3.0}, r"cost must be a function"),
        ({"files": ["a"]}, r"files must be a function"),
        ({"scores": ("a",)}, r"scores must be a function"),
        ({"max_skipped": 0.5}, r"max_skipped must be a function"),
        ({"damages": []}, r"damages must be a function"),
        ({"keeps": frozenset()}, r"keeps must be a function, called as keeps\(config\)"),
        ({"details": {}}, r"details must be a function, called as details\(config\)"),
        ({"details": None}, r"details must be a function"),
        (
            {"endings": ".jsonl"},
            r"endings must be a tuple of endings .* got '.jsonl'",
        ),
        ({"pairs": "yes"}, r"pairs must be True or False, got 'yes'"),
        ({"about": "text"}, "about must be an About, got 'text'"),
        ({"requires": "torch"}, "requires must be a tuple of module names, got 'torch'"),
        ({"requires": (3,)}, "requires must be a tuple"),
        ({"seeded": 1}, "seeded must be True or False, got 1"),
        ({"torch": None}, "torch must be True or False"),
    ],
)
def test_a_component_that_is_wrong_is_named_with_its_plugin(manager, fields, message):
    class Wrong:
        @hookimpl
        def selectmoe_scorers(self):
            return [Component(**{"name": "mine", "config": Nothing, "build": list} | fields)]

    manager.register(Wrong(), name="wrong")
    with pytest.raises(PluginError, match=message) as caught:
        Registry(manager)
    assert str(caught.value).startswith("plugin 'wrong': the scorer ")
    assert "--disable-plugin wrong" in caught.value.hint


def test_all_that_is_wrong_with_a_component_is_reported_at_once(manager):
    class Wrong:
        @hookimpl
        def selectmoe_scorers(self):
            return [Component("mine", dict, None, seeded="yes")]

    manager.register(Wrong(), name="wrong")
    with pytest.raises(PluginError, match=r"config must .*; seeded must .*; build must "):
        Registry(manager)


@pytest.mark.parametrize("models", [["a"], {"a": "folder"}, {3: Path()}])
def test_what_a_plugin_bundles_must_be_names_and_folders(manager, models):
    manager.register(Fake(models=models), name="one")
    with pytest.raises(PluginError, match="plugin 'one': selectmoe_bundled_models"):
        _ = Registry(manager).models


@pytest.mark.parametrize("offered", [None, 3])
def test_a_hook_that_returns_no_list_is_reported_with_what_was_expected(manager, offered):
    class Wrong:
        @hookimpl
        def selectmoe_readers(self):
            return offered

    manager.register(Wrong(), name="wrong")
    with pytest.raises(PluginError, match=r"'wrong': selectmoe_readers must return .*, got"):
        Registry(manager)


def test_files_find_their_readers_by_the_endings_that_these_declare(manager):
    class Readers:
        @hookimpl
        def selectmoe_readers(self):
            yield Component("log", Nothing, list, endings=(".log", ".log.gz"))
            yield Component("board", Nothing, list, endings=(".board",))
            yield Component("remote", Nothing, list)

    manager.register(Readers(), name="three")
    registry = Registry(manager)
    assert registry.readers_of(["x.board", "a.LOG.gz", "b.log", "c.txt"]) == ["board", "log"]
    assert registry.readers_of([]) == registry.readers_of(["log"]) == []
