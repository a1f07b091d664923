"""The command line: help, exit codes, what goes to which stream, and what is not imported."""

import ast
import html
import json
import os
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from conftest import LEFT_OUT, ROOT, use_site, write_plugin
from one_module_plugins import BROKEN, GOOD

from selectmoe_core.cli import cli as group
from selectmoe_core.cli import run as run_command
from selectmoe_core.cli.commands import COMMANDS, plugin_commands
from selectmoe_core.plugin.component import Kind

HEAVY = {"torch", "transformers", "datasets", "lm_eval", "peft", "accelerate"}


OFFERED = plugin_commands(LEFT_OUT[1::2])
HELP = {name: command.help for name, command in COMMANDS.items()} | {
    name: OFFERED[name].command.help for name in sorted(OFFERED)
}


def commands():
    context = click.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def subcommands():
    for name, command in commands().items():
        yield (name,), command
        for sub, inner in getattr(command, "commands", {}).items():
            yield (name, sub), inner


# --------------------------------------------------------------------------------------- help


def test_every_command_is_there():
    assert list(commands()) == list(HELP)
    assert len(COMMANDS) >= 8
    assert {name: offered.plugin for name, offered in OFFERED.items()} == {
        "convert": "olmoe",
        "init": "readers",
        "verify": "olmoe",
    }


@pytest.mark.parametrize("name", sorted(HELP))
def test_the_list_of_commands_says_what_each_says_of_itself(name):
    command = commands()[name]
    assert command.help.partition("\n")[0].strip() == HELP[name]
    assert HELP[name].endswith(".")


@pytest.mark.parametrize("path", [path for path, _ in subcommands()], ids=" ".join)
def test_every_command_explains_itself_and_its_options(cli, path):
    said = cli(*path, "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: selectmoe {' '.join(path)}")
    command = dict(subcommands())[path]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.name} has no help"
            assert option.opts[0] in said.out


def test_help_lists_the_commands_in_order(cli):
    said = cli("--help")
    places = [said.out.index(f"\n  {name} ") for name in HELP]
    assert places == sorted(places)
    assert cli("-h").out == said.out


def test_the_version_is_that_of_the_package(cli):
    from importlib.metadata import version

    assert version("selectmoe") in cli("--version").out


# -------------------------------------------------------------------- commands of plugins

COMMANDS_OF_PLUGINS = """
import click
from selectmoe_core import Command, command_job, hookimpl, print_facts

@click.command("{name}")
@click.pass_context
def greet(context):
    {help}
    with command_job(context, seed=7) as job:
        print_facts({{"seed": job.seed, "models": sorted(job.models.bundled)}})

@hookimpl
def selectmoe_commands():
    return [Command("{name}", "Greet the plugins.", "{target}")]
"""


def install(site, plugin, monkeypatch, name="greet", target=None):
    source = COMMANDS_OF_PLUGINS.format(
        name=name,
        help='"""Greet the plugins."""',
        target=target or f"{plugin}_dist_module:greet",
    )
    write_plugin(site, plugin, source)
    use_site(site, monkeypatch)


def test_a_plugin_adds_a_command(cli, tmp_path, monkeypatch):
    install(tmp_path, "greeting", monkeypatch)
    lines = [line.split(maxsplit=1) for line in cli("--help").out.splitlines() if line.strip()]
    assert ["greet", "Greet the plugins."] in lines
    said = cli("greet")
    assert (said.code, said.out) == (0, "seed: 7\nmodels: ['nano-llama', 'nano-olmoe']\n")
    assert "Greet the plugins." in cli("greet", "--help").out
    without = cli("--disable-plugin", "nano", "greet")
    assert without.out == "seed: 7\nmodels: []\n"


def test_the_command_of_a_plugin_that_is_left_out_is_named_with_it(cli, tmp_path):
    said = cli("--disable-plugin", "olmoe", "convert", "bundled:nano-olmoe", tmp_path / "out")
    assert said.code == 2
    assert "'convert' belongs to the plugin 'olmoe', which is disabled" in said.err
    assert "without --disable-plugin olmoe" in said.err
    assert not (tmp_path / "out").exists()
    helped = cli("--disable-plugin", "olmoe", "--help").out
    assert "\n  report " in helped
    assert "\n  convert " not in helped
    assert "there is no command 'converts'" in cli("--disable-plugin", "olmoe", "converts").err


@pytest.mark.parametrize("command", [["list"], ["greet"], ["plan", "default"]], ids=" ".join)
def test_two_plugins_with_one_command_are_an_error_that_names_both(
    cli, tmp_path, monkeypatch, command
):
    for plugin in ("first", "second"):
        install(tmp_path, plugin, monkeypatch)
    said = cli(*command)
    assert said.code == 3
    assert "'greet' is offered by two plugins: 'first' (" in said.err
    assert "and 'second' (" in said.err
    assert cli("--disable-plugin", "first", *command).code == 0


@pytest.mark.parametrize("command", [["list"], ["greet"], ["plan", "default"]], ids=" ".join)
def test_a_plugin_cannot_take_a_command_of_the_core(cli, tmp_path, monkeypatch, command):
    install(tmp_path, "taker", monkeypatch, name="plan")
    said = cli(*command)
    assert said.code == 3
    assert "the plugin 'taker' (" in said.err
    assert "offers a command 'plan'" in said.err
    assert "--disable-plugin taker" in said.err


@pytest.mark.parametrize(
    "target", ["nowhere_at_all:greet", "odd_dist_module:nothing", "odd_dist_module:hookimpl", "x"]
)
def test_a_command_that_cannot_be_loaded_names_its_plugin(cli, tmp_path, monkeypatch, target):
    install(tmp_path, "odd", monkeypatch, target=target)
    said = cli("greet")
    assert said.code == 3
    assert "the command 'greet' of the plugin 'odd' (" in said.err
    assert target in said.err
    assert "Traceback" not in said.err


def test_help_helps_where_a_plugin_is_broken(cli, tmp_path, monkeypatch):
    write_plugin(tmp_path, "sick", "import nowhere_at_all")
    use_site(tmp_path, monkeypatch)
    said = cli("--help")
    assert said.code == 0
    assert "\n  run " in said.out
    assert "Commands of plugins cannot be listed" in said.out
    assert "--disable-plugin sick" in " ".join(said.out.split())
    assert "\n  convert " in cli("--disable-plugin", "sick", "--help").out


# ------------------------------------------------------------------------------- light imports


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["plugins"],
        ["describe", "scorer", "random"],
        ["recipes", "list"],
        ["recipes", "schema"],
        ["run", "--help"],
        ["plan", "--help"],
        ["convert", "--help"],
        ["verify", "--help"],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments):
    program = (
        "import sys\n"
        "from selectmoe_core.cli import call\n"
        "code = call(sys.argv[1:])\n"
        "print('loaded', sorted(set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", program, *LEFT_OUT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    loaded = set(ast.literal_eval(done.stderr.strip().rpartition("\n")[2].removeprefix("loaded ")))
    assert not loaded & HEAVY
    assert "selectmoe_core.cli" in loaded


def test_the_module_runs_as_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "selectmoe_core", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Commands" in done.stdout


# ---------------------------------------------------------------------------------- exit codes


def test_a_run_ends_with_0_and_prints_only_its_result(project):
    said = project.run("--quiet")
    assert said.code == 0
    assert said.err == ""
    assert "Report: outputs/fake/" in said.out
    assert "selected" in said.out


def test_a_run_prints_what_a_reused_score_warned_of(project):
    assert "Warning" not in project.run("--quiet").out
    (path,) = (
        found.parent / "artifact.json"
        for found in project.store.glob("score-*/artifact.json")
        if json.loads(found.read_text())["component"] == "fake-score"
    )
    manifest = json.loads(path.read_text())
    manifest["facts"]["warnings"] = ["most of the pool\nlooks alike"]
    path.write_text(json.dumps(manifest))
    said = project.run("--quiet")
    assert "Warning: score: most of the pool looks alike\nReport: " in said.out


def test_progress_goes_to_stderr(project):
    said = project.run()
    assert "pool" in said.err
    assert "done in" not in said.out


def test_a_failing_stage_ends_with_1_one_line_and_a_hint(project):
    said = project.run("score.what=equal", "--quiet")
    assert said.code == 1
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Error: ")
    assert lines[1].startswith("Hint: ")


def test_a_bug_ends_with_1_and_keeps_its_traceback(project):
    project.tell("fail-train-10")
    said = project.run()
    assert said.code == 1
    assert "Traceback" in said.err
    assert "RuntimeError: told to fail at train-10" in said.err
    assert "an error of the plugin 'fake'" in said.err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["rum"],
        ["run"],
        ["run", "recipe.toml", "--nothing"],
        ["run", "recipe.toml", "--until", "nowhere"],
        ["run", "recipe.toml", "--fresh", "nowhere"],
        ["run", "recipe.toml", "--threads", "-1"],
        ["run", "recipe.toml", "--dtype", "int8"],
        ["run", "recipe.toml", "--num-processes", "0"],
        ["run", "recipe.toml", "--outputs", "recipe.toml"],
        ["run", "recipe.toml", "select.fraction"],
        ["run", "nowhere.toml"],
        ["plan", "recipe.toml", "--for", "abacus"],
        ["plan", "recipe.toml", "--until", "nowhere"],
        ["list", "scorers"],
        ["describe", "scorer"],
        ["describe", "scorer", "nothing"],
        ["recipes", "copy", "nothing", "x.toml"],
        ["report", "nowhere"],
        ["verify", "nowhere", "x"],
        ["convert", "base", "out", "nothing=3"],
        ["convert", "base", "out", "num_trash_experts"],
        ["convert", "base", "recipe.toml"],
        ["convert", "base", "out"],
        ["verify", ".", "base", "--tolerance", "-1"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_no_traceback(project, arguments):
    said = project.call(*arguments)
    assert said.code == 2, said.err
    assert "Error: " in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not (project.folder / "out").exists()


def test_a_misspelt_command_gets_a_suggestion(cli):
    assert "did you mean 'describe'?" in cli("descrbe").err


def test_a_misspelt_component_gets_a_suggestion(cli):
    assert "did you mean 'random'?" in cli("describe", "scorer", "randm").err


@pytest.mark.parametrize("name", ["import", "misspelt hook", "no component"])
def test_a_broken_plugin_ends_with_3_and_can_be_left_out(cli, tmp_path, monkeypatch, name):
    source, message = BROKEN[name]
    write_plugin(tmp_path / "site", "bad", source)
    use_site(tmp_path / "site", monkeypatch)
    said = cli("list")
    assert said.code == 3
    assert message.partition(":")[0] in said.err
    assert "--disable-plugin bad" in said.err
    assert "Traceback" not in said.err
    left_out = cli("--disable-plugin", "bad", "list")
    assert left_out.code == 0
    assert "random" in left_out.out


def test_two_plugins_of_one_name_end_with_3(cli, tmp_path, monkeypatch):
    for distribution in ("one-dist", "two-dist"):
        write_plugin(tmp_path / "site", "twin", GOOD, distribution=distribution)
    use_site(tmp_path / "site", monkeypatch)
    said = cli("list")
    assert said.code == 3
    assert "one-dist 1.5, two-dist 1.5" in said.err


def test_two_plugins_that_offer_one_component_end_with_3_and_name_both(cli, tmp_path, monkeypatch):
    for name in ("one", "two"):
        write_plugin(tmp_path / "site", name, GOOD)
    use_site(tmp_path / "site", monkeypatch)
    said = cli("list")
    assert said.code == 3
    assert "'one' (one-dist 1.5) and 'two' (two-dist 1.5)" in said.err or (
        "'two' (two-dist 1.5) and 'one' (one-dist 1.5)" in said.err
    )


def test_an_interrupt_ends_with_130(cli, monkeypatch):
    from selectmoe_core.cli import options

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "load_plugins", interrupted)
    said = cli("list")
    assert said.code == 130
    assert "Traceback" not in said.err


def test_a_signal_while_a_class_is_made_is_an_interrupt(cli, monkeypatch):
    """Until Python 3.11 a class wraps what its descriptors raise in a RuntimeError."""
    from selectmoe_core.cli import options
    from selectmoe_core.runtime.processes import Ended

    class Struck:
        def __set_name__(self, owner, name):
            raise Ended(signal.SIGTERM)

    def making_a_class(*_, **__):
        return type("Config", (), {"check": Struck()})

    monkeypatch.setattr(options, "load_plugins", making_a_class)
    said = cli("list")
    assert said.code == 143
    assert "Traceback" not in said.err


def test_a_run_ends_with_where_its_results_are_and_what_may_come_next(project):
    said = project.run("--until", "select")
    assert said.code == 0, said.err
    results, what, audit, _, export = said.err.splitlines()[-5:]
    folder = project.folder / results.removeprefix("Results: ")
    assert (folder / "select" / "selected_data.jsonl").is_file()
    assert what == "Next: Which damage do the scores notice?"
    assert audit == "  selectmoe audit recipe.toml"
    command = export.split()
    assert command[:2] == ["selectmoe", "export"]
    assert project.call(*command[1:]).code == 0
    changed = project.run("select.fraction=0.5", "--until", "select")
    assert "\n  selectmoe audit recipe.toml select.fraction=0.5\n" in changed.err
    quiet = project.run("--until", "select", "--quiet")
    assert quiet.err == ""


def test_report_and_terminal_suggest_the_same(project, monkeypatch):
    changes = ["select.fraction=0.5", "seed=3"]
    monkeypatch.setattr(sys, "argv", ["selectmoe", "run", "recipe.toml", *changes])
    said = project.run(*changes)
    assert said.code == 0, said.err
    (folder,) = project.runs()
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    for what, command in (
        ("Which damage do the scores notice?", "audit recipe.toml select.fraction=0.5 seed=3"),
        (
            "Is it more than chance? Three seeds and an interval",
            "compare recipe.toml select.fraction=0.5 'seed=[1,2,3]'",
        ),
    ):
        assert f"Next: {what}\n  selectmoe {command}\n" in said.err
        assert f"<dt>{what}</dt><dd><code>selectmoe {command}</code>" in page


def test_progress_is_wrapped_on_a_terminal_and_commands_stay_whole(monkeypatch):
    from selectmoe_core.cli.options import fitting

    long = "pool  done: " + ", ".join(f"source{n} {n}" for n in range(40))
    assert fitting(long) == long  # not a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    lines = fitting(long).splitlines()
    assert len(lines) > 5
    assert all(len(line) <= 60 for line in lines)
    assert " ".join(line.strip() for line in lines).split() == long.split()
    command = "  selectmoe export " + "x" * 80 + " --to trl"
    assert fitting(command) == command


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("plan def", ["default"]),
        ("run steps/tr", ["steps/train"]),
        ("compare default comp", ["compare"]),
        ("audit mi", ["mine.toml"]),
        ("recipes copy ifd", ["ifd"]),
        ("plan sub/", ["sub/other.toml"]),
    ],
)
def test_names_of_recipes_are_completed(tmp_path, monkeypatch, words, offered):
    from click.shell_completion import ShellComplete

    from selectmoe_core.cli import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("mine.toml", "notes.txt", "sub/other.toml"):
        (tmp_path / name).touch()
    *arguments, incomplete = words.split()
    complete = ShellComplete(cli, {}, "selectmoe", "_SELECTMOE_COMPLETE")
    found = complete.get_completions(arguments, incomplete)
    assert [item.value for item in found if item.type == "plain"] == offered
    assert found[0].type == "file"


@pytest.mark.parametrize("arguments", ["recipes schema", "list", "plugins", "--help"])
def test_a_reader_that_has_gone_is_no_error(arguments):
    command = f"{sys.executable} -m selectmoe_core {' '.join(LEFT_OUT)} {arguments} | head -c 0"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_another_pipe_that_breaks_is_an_error(cli, monkeypatch):
    def broken(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("selectmoe_core.cli.plugins.find_plugins", broken)
    with pytest.raises((BrokenPipeError, SystemExit)):
        cli("plugins")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--disable-plugin", "lm", "list", "scorer"],
        ["list", "--disable-plugin", "lm", "scorer"],
        ["list", "scorer", "--disable-plugin=lm"],
        ["list", "--disable-plugin", "olmoe", "scorer", "--disable-plugin", "lm"],
    ],
)
def test_a_plugin_can_be_left_out_anywhere_on_the_line(cli, arguments):
    assert "perplexity" in cli("list", "scorer").out
    said = cli(*arguments)
    assert said.code == 0, said.err
    assert "perplexity" not in said.out
    assert "length" in said.out


def test_a_plugin_to_leave_out_needs_a_name(cli):
    said = cli("list", "--disable-plugin")
    assert said.code == 2
    assert "requires an argument" in said.err


# ------------------------------------------------------------------------------------- output


def test_the_list_has_every_component_with_its_plugin(cli):
    lines = cli("list").out.splitlines()
    assert len(lines) >= 10
    kinds = [line.split()[0] for line in lines]
    assert set(kinds) <= {str(kind) for kind in Kind}
    assert kinds == sorted(kinds, key=lambda kind: list(Kind).index(Kind(kind)))
    assert all(line.endswith(".") for line in lines)
    only = cli("list", "selector").out.splitlines()
    of_kind = [line.split() for line in lines if line.startswith("selector")]
    assert [line.split() for line in only] == of_kind  # the columns are as wide as they need to be
    assert len(only) >= 3


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_the_list_fits_the_terminal_and_breaks_no_word(cli, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = cli("list").out
    words = sorted(whole.split())
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = cli("list").out.splitlines()
    assert len(lines) > len(whole.splitlines())
    assert sorted(" ".join(lines).split()) == words
    assert max(map(len, lines)) <= columns


def test_the_description_shows_every_option_with_its_default(cli):
    said = cli("describe", "scorer", "length")
    assert 'unit = "characters"' in said.out
    assert "Count characters" in said.out
    assert "meaning: " in said.out
    assert "path  (required)" in cli("describe", "reader", "jsonl").out
    assert "changes speed or memory only)" in cli("describe", "scorer", "router").out


def test_the_plugins_are_listed_with_distribution_and_module(cli):
    said = cli("plugins")
    assert "basic" in said.out
    assert "selectmoe_basic.plugin" in said.out
    assert "(disabled)" in cli("--disable-plugin", "basic", "plugins").out


def test_a_plan_is_readable_and_complete_as_json(project):
    said = project.call("plan", "recipe.toml")
    assert said.code == 0
    for word in (
        "pool",
        "fake-train",
        "to do",
        "?",
        "score reads pool, model warmup",
        "Total: time",
    ):
        assert word in said.out
    [first, *_] = project.plan()["nodes"]
    assert {"key", "component", "digest", "state", "reads", "arms", "cost", "shown"} <= set(first)


@pytest.mark.parametrize("columns", [80, 100, 140])
@pytest.mark.parametrize("recipe", ["default", "blend", "smollm2"])
def test_a_plan_fits_the_terminal_and_breaks_no_word(cli, tmp_path, monkeypatch, recipe, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("SELECTMOE_DATA", str(tmp_path))
    overrides = ["pool.use=nano"] if recipe == "smollm2" else []
    said = cli("plan", recipe, *overrides, "--outputs", tmp_path, "--for", "h100")
    assert said.code == 0, said.err
    table, totals, _ = said.out.split("\n\n", 1)[1].split("\n\n")
    assert max(len(line) for line in table.splitlines()) <= columns
    assert "…" not in said.out
    assert ("FLOPs" in table) >= (columns == 140)
    assert "FLOPs" not in table or columns > 80
    assert "fits the 74.5 GiB of one h100" in totals


def test_every_line_of_a_plan_fits_80_columns(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for recipe in ("default", "compare"):
        said = cli("plan", recipe, "--outputs", tmp_path)
        assert said.code == 0, said.err
        assert max(map(len, said.out.splitlines())) <= 80


def test_a_plan_whose_models_are_elsewhere_says_what_would_make_it_known(
    cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    arguments = ("steps/train", f"train.data={data}", "train.model=some/model")
    said = cli("plan", *arguments, "--outputs", tmp_path)
    assert said.code == 0, said.err
    assert "disk ?, memory at most ?" in said.out
    assert "    hf download some/model config.json" in said.out.splitlines()
    config = '{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 99,'
    config += ' "intermediate_size": 99, "num_attention_heads": 4, "num_key_value_heads": 4}'
    snapshot = tmp_path / "cache" / "models--some--model" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(config)
    said = cli("plan", *arguments, "--outputs", tmp_path, "--for", "rtx4090")
    assert "hf download" not in said.out
    totals = said.out[said.out.index("Total:") :].splitlines()[0]
    assert "?" not in totals
    assert "fits the 22.4 GiB of one rtx4090" in totals


def test_what_is_cached_costs_nothing_in_a_plan(project):
    assert project.run().code == 0
    said = project.call("plan", "recipe.toml")
    assert "Nothing to do" in said.out
    assert "~" not in said.out.partition("Nothing to do")[0]


def test_the_report_can_be_written_again(project):
    project.run()
    [folder] = project.runs()
    before = (folder / "report.md").read_text()
    (folder / "report.md").unlink()
    said = project.call("report", folder)
    assert said.code == 0
    assert (folder / "report.md").read_text() == before
    assert "report.html" in said.out


def test_a_report_compares_with_another_run_and_opens(project, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda page: opened.append(page) or len(opened) > 1)
    project.run()
    project.run("select.fraction=0.5")
    first, second = project.runs()
    said = project.call("report", second, "--against", first, "--open")
    assert said.code == 0, said.err
    assert "There is no browser here" in said.err
    page = (second / "report.html").read_text()
    started = json.loads((first / "run.json").read_text())["started"]
    assert f"<h3>selected and fake, {started}</h3>" in page
    said = project.call("report", second, "--open")
    assert opened == [(second / "report.html").resolve().as_uri()] * 2
    assert "no browser" not in said.err
    assert f"fake, {started}" not in (second / "report.html").read_text()
    assert project.call("report", second, "--against", "nowhere").code == 2


def test_the_schema_of_a_report_is_printed(project):
    said = project.call("report", "--schema")
    assert said.code == 0
    assert json.loads(said.out)["properties"]["format"] == {
        "const": 2, "description": "The version of this file.",
    }  # fmt: skip


def test_the_report_of_what_is_no_run_is_told(project):
    said = project.call("report", project.folder)
    assert said.code == 1
    assert "run.json is missing" in said.err
    assert "Hint: " in said.err


def test_click_and_the_call_agree():
    result = CliRunner().invoke(group, [*LEFT_OUT, "list"])
    assert result.exit_code == 0


# ------------------------------------------------------------------------------------ recipes


def test_shipped_recipes_are_listed_and_copied(project):
    said = project.call("recipes", "list")
    assert said.code == 0
    names = [line.split()[0] for line in said.out.splitlines()]
    shipped = sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))
    steps = sorted(f"steps/{path.stem}" for path in (ROOT / "recipes" / "steps").glob("*.toml"))
    assert names == [*shipped, *steps]
    assert project.call("recipes", "copy", "steps/train", "copied.toml").code == 0
    assert (project.folder / "copied.toml").read_text().startswith("# One step: fine-tune")
    assert "default" in names
    assert all(len(line.split()) > 3 for line in said.out.splitlines())
    assert project.call("recipes", "copy", "default", "mine.toml").code == 0
    copied = (project.folder / "mine.toml").read_bytes()
    assert copied == (ROOT / "recipes" / "default.toml").read_bytes()
    again = project.call("recipes", "copy", "default.toml", "mine.toml")
    assert again.code == 2
    assert "exists" in again.err
    assert project.call("recipes", "copy", "default", "mine.toml", "--force").code == 0
    assert project.call("recipes", "copy", "default", ".").code == 0
    said = project.call("recipes", "copy", "default", "nowhere/mine.toml")
    assert (said.code, "there is no folder nowhere" in said.err) == (2, True)
    assert (project.folder / "default.toml").is_file()


@pytest.fixture
def schema(cli):
    said = cli("recipes", "schema")
    assert said.code == 0
    return json.loads(said.out)


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_schema_knows_the_trackers(schema):
    trackers = schema["properties"]["trackers"]
    assert {"tensorboard", "wandb"} <= trackers["properties"].keys()
    assert trackers["properties"]["wandb"]["properties"]["mode"]["enum"] == ["online", "offline"]
    assert trackers["additionalProperties"] is False


def test_every_reference_of_the_schema_leads_somewhere(schema):
    found = set(references(schema))
    assert found
    for reference in found:
        assert reference.startswith("#/$defs/")
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_every_key_of_the_schema_is_described(schema):
    for stage in ("pool", "score", "select", "train"):
        for component in schema["properties"][stage]["anyOf"]:
            for key, of in component.get("properties", {}).items():
                assert of.get("description"), f"{stage}.{key} of {component['title']}"


KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def fits(value, schema, root):
    """A small validator of the parts of JSON schema that the recipe's schema uses."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    kind = schema.get("type")
    rules = [
        "anyOf" not in schema or any(fits(value, one, root) for one in schema["anyOf"]),
        "const" not in schema or value == schema["const"],
        "enum" not in schema or value in schema["enum"],
        kind is None or isinstance(value, KINDS[kind]),
        kind not in ("number", "integer") or not isinstance(value, bool),
        not isinstance(value, dict) or _fits_object(value, schema, root),
        not isinstance(value, list)
        or all(fits(item, schema.get("items", {}), root) for item in value),
    ]
    return all(rules)


def _fits_object(value, schema, root):
    if any(key not in value for key in schema.get("required", [])):
        return False
    known, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        rule = known.get(key, extra)
        if rule is False or (isinstance(rule, dict) and not fits(item, rule, root)):
            return False
    return True


RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


def test_there_are_recipes_to_check():
    assert len(RECIPES) >= 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_fits_the_schema(schema, path):
    import tomllib

    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    for key, value in recipe.items():
        assert key in schema["properties"]
        assert fits(value, schema["properties"][key], schema), f"[{key}] {value}"
    assert fits(recipe, schema, schema)


@pytest.mark.parametrize(
    "change",
    [
        {"select": {"use": "top-fraction", "fracton": 0.1}},
        {"select": {"use": "nothing"}},
        {"select": {"fraction": 0.1}},
        {"score": {"use": "length", "unit": 3}},
        {"nothing": {}},
        {"name": 3},
        {"pool": {"use": "jsonl"}},
    ],
)
def test_the_schema_refuses_what_is_wrong(schema, change):
    good = {
        "format": 1,
        "name": "x",
        "pool": {"use": "jsonl", "path": "p", "columns": {"prompt": "question"}},
        "score": {"a": {"use": "length", "unit": "words"}, "b": {"use": "random"}},
        "select": {"use": "top-fraction", "fraction": 0.1, "score": "a"},
    }
    assert fits(good, schema, schema)
    assert not fits({**good, **change}, schema, schema)


def test_the_environment_of_this_test_is_the_users_own():
    own = {"SELECTMOE_DATA", "SELECTMOE_FUZZ", "SELECTMOE_FUZZ_SEED"}  # said to the tests
    assert "SELECTMOE" not in " ".join(os.environ.keys() - own)


@pytest.mark.parametrize(("columns", "lines"), [(60, 3), (20, 6)])
def test_the_result_fits_the_terminal(columns, lines, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = (("task", "base", "vs base"), ("quiz", "0.5 ± 0.1", "-0.1 ± 0.2"), ("essay", "-", "-"))
    run_command._print_table(rows)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert sum("0.5 ± 0.1" in line for line in printed) == 1
    assert max(map(len, printed)) <= 30
