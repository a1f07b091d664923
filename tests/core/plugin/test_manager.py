"""Loading plugins: whatever is wrong with one names its distribution and the way on."""

from importlib.metadata import Distribution, EntryPoint

import pytest
from one_module_plugins import BROKEN, GOOD

from selectmoe_core.errors import PluginError
from selectmoe_core.plugin.manager import find_plugins, load_plugins, notify
from selectmoe_core.plugin.registry import Registry


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs plugins of one module each, by hand, where only this test sees them."""
    from conftest import use_site, write_plugin

    site = tmp_path / "site"

    def install(*plugins: tuple[str, str, str]) -> None:
        for name, source, distribution in plugins:
            write_plugin(site, name, source, distribution=distribution)
        use_site(site, monkeypatch)

    return install


def found_of(site_plugins: set[str]) -> list[EntryPoint]:
    return [entry for entry in find_plugins() if entry.name in site_plugins]


def test_a_plugin_of_one_module_is_found_and_offers(install):
    install(("good", GOOD, "good-dist"))
    manager = load_plugins(found=found_of({"good"}))
    assert [name for name, _ in manager.list_name_plugin()] == ["good"]
    assert [entry.component.name for entry in Registry(manager)] == ["good-score"]


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_plugin_names_itself_its_distribution_and_the_way_out(install, name):
    source, message = BROKEN[name]
    install(("bad", source, "bad-dist"), ("good", GOOD, "good-dist"))
    entries = found_of({"bad", "good"})
    with pytest.raises(PluginError, match=message) as caught:
        Registry(load_plugins(found=entries))
    assert caught.value.exit_code == 3
    assert "'bad'" in str(caught.value)
    assert "--disable-plugin bad" in caught.value.hint
    assert list(Registry(load_plugins(["bad"], found=entries)))


def test_the_distribution_is_named_with_its_version(install):
    install(("bad", "import nowhere_at_all", "bad-dist"))
    with pytest.raises(PluginError, match=r"bad-dist 1\.5"):
        load_plugins(found=found_of({"bad"}))


def test_two_plugins_of_one_name_are_a_clash_that_names_both(install):
    install(("twin", GOOD, "first-dist"), ("twin", GOOD, "second-dist"))
    entries = found_of({"twin"})
    assert len(entries) == 2
    with pytest.raises(PluginError, match=r"first-dist 1\.5, second-dist 1\.5") as caught:
        load_plugins(found=entries)
    assert "--disable-plugin twin" in caught.value.hint
    # Left out, both are gone, and nothing else is there.
    assert load_plugins(["twin"], found=entries).list_name_plugin() == []


def test_a_plugin_that_is_not_there_cannot_be_disabled(install):
    install(("good", GOOD, "good-dist"))
    with pytest.raises(PluginError, match="no plugin 'goood'") as caught:
        load_plugins(["goood"], found=found_of({"good"}))
    assert caught.value.hint == "did you mean 'good'?"


def test_no_plugin_at_all_is_an_error():
    with pytest.raises(PluginError, match="no plugin is installed"):
        load_plugins(found=[])


def test_an_entry_point_without_a_distribution_is_still_named():
    entry = EntryPoint("loose", "nowhere_at_all", "selectmoe")
    with pytest.raises(PluginError, match="an unknown distribution"):
        load_plugins(found=[entry])


def test_the_built_in_plugins_are_found_by_the_same_table():
    owners = {entry.name: entry.dist for entry in find_plugins()}
    assert {"basic", "readers", "router", "olmoe", "llama"} <= set(owners)
    assert all(isinstance(owner, Distribution) for owner in owners.values())


def test_observers_are_called_in_spite_of_one_that_fails(manager):
    from selectmoe_core import hookimpl

    seen, told = [], []

    class Fails:
        @hookimpl
        def selectmoe_run_started(self, run):
            raise ValueError("no")

    class Sees:
        @hookimpl
        def selectmoe_run_started(self, run):
            seen.append(run)

    manager.register(Sees(), name="sees")
    manager.register(Fails(), name="fails")
    notify(manager, "selectmoe_run_started", told.append, run="folder")
    assert seen == ["folder"]
    assert told == ["warning: fails: selectmoe_run_started failed: no"]


def test_a_plugin_may_say_which_interface_it_is_written_for(install):
    install(("good", GOOD + "\napi = 1\n", "good-dist"))
    assert list(Registry(load_plugins(found=found_of({"good"}))))


def test_a_slow_import_is_reported_with_the_plugin(install, monkeypatch, caplog):
    from selectmoe_core.plugin import manager

    monkeypatch.setattr(manager, "SLOW", 0.1)
    busy = "import time\nwhile time.process_time() < END:\n    pass\n"
    busy = f"import time\nEND = time.process_time() + 0.15\n{busy}"
    install(("slow", f"{busy}{GOOD}", "slow-dist"))
    load_plugins(found=found_of({"slow"}))
    (record,) = [record for record in caplog.records if record.name == "selectmoe.plugins"]
    assert "importing the plugin 'slow' (slow-dist 1.5) took 0." in record.getMessage()
    assert "--disable-plugin slow" in record.getMessage()
    caplog.clear()
    monkeypatch.setattr(manager, "SLOW", 5.0)
    load_plugins(found=found_of({"slow"}))
    assert not caplog.records
