"""What a terminal is shown cannot steer it."""

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import unicodedata
from importlib.metadata import EntryPoint

import pytest
from conftest import LEFT_OUT, ROOT, use_site, write_plugin

from selectmoe_core.runtime.processes import Ended
from selectmoe_core.runtime.terminal import (
    LogFormatter,
    SafeStream,
    one_line,
    printable,
    raw_stream,
    safe_streams,
)

TITLE = "\x1b]0;PWN\x07"


def steers(character):
    """What the standard calls a control, a mark of direction or half of a character."""
    kind = unicodedata.category(character)
    marks = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    turns = unicodedata.bidirectional(character) in marks
    return (kind in ("Cc", "Cs", "Zl", "Zp") or turns) and character not in "\t\n"


def test_every_character_that_steers_is_written_as_its_escape():
    for code in range(0x11000):
        shown = printable(f"a{chr(code)}b")
        if steers(chr(code)):
            assert shown.isascii(), hex(code)
            assert f"{code:02x}" in shown
            assert shown.startswith("a\\")
        elif code not in (0x200E, 0x200F):
            assert shown == f"a{chr(code)}b"
    assert printable("\u200f") == "\\u200f"
    assert one_line("a\tb\nc\rd") == "a\\tb\\nc\\x0dd"


def test_a_safe_stream_writes_what_its_encoding_has():
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = SafeStream(raw)
    assert stream.write(f"é{TITLE}") == 1 + len(TITLE)
    stream.writelines(["x\n", "\x9b2J"])
    stream.flush()
    assert raw.buffer.getvalue() == b"\\xe9\\x1b]0;PWN\\x07x\n\\x9b2J"
    assert raw_stream(stream) is raw
    assert raw_stream(raw) is raw


def test_streams_are_safe_in_the_block_alone(capsys):
    before = sys.stdout, sys.stderr
    with safe_streams(), safe_streams():
        sys.stdout.write(TITLE + "\n")
        sys.stderr.write(TITLE + "\n")
    assert (sys.stdout, sys.stderr) == before
    written = capsys.readouterr()
    assert written.out == written.err == "\\x1b]0;PWN\\x07\n"


def test_a_log_keeps_its_lines_and_nothing_that_steers():
    record = logging.LogRecord("n", logging.INFO, "p", 1, "a%sb\nc", (TITLE,), None)
    assert LogFormatter("%(message)s").format(record) == "a\\x1b]0;PWN\\x07b\nc"


BARS = """
import sys
from selectmoe_core.runtime.progress import RichProgress
from selectmoe_core.runtime.terminal import safe_streams
with safe_streams(), RichProgress().task("[bold]\\x1b]0;PWN\\x07[/x]", 2) as advance:
    advance(1)
    print("\\x1b]0;PWN\\x07 \\x9b", file=sys.stderr)
    advance(1)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("script"), reason="needs script(1) of util-linux"
)
def test_bars_show_labels_as_they_are_and_let_nothing_through(tmp_path):
    program = tmp_path / "bars.py"
    program.write_text(BARS)
    log = tmp_path / "log"
    command = f"{sys.executable} {program}"
    terminal = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    script = ["script", "-qec", command, str(log)]
    subprocess.run(script, check=True, capture_output=True, env=terminal)
    shown = log.read_bytes()
    assert b"[bold]\\x1b]0;PWN\\x07[/x]" in shown
    assert b"\x1b]0" not in shown
    assert "\x9b".encode() not in shown


def test_no_output_of_a_command_lets_data_steer(project):
    rows = [
        {"dataset": TITLE, "id": TITLE, "messages": [{"role": "user", "content": TITLE}]},
        {TITLE: 1},
    ]
    for number, row in enumerate(rows):
        (project.folder / "pool.jsonl").write_text(json.dumps(row) + "\n")
        said = project.run(f"name=t{number}")
        assert said.code
        assert "\x1b" not in said.out + said.err
    logs = list(project.folder.glob("outputs/t*/*/*/run.log"))
    assert logs
    assert all("\x1b" not in path.read_text() for path in logs)
    for name in (TITLE, "[/x]"):
        said = project.call("plan", "recipe.toml", f"name={json.dumps(name)}")
        assert "\x1b" not in said.out + said.err


class Unread(io.StringIO):
    """A pipe that nobody reads any more."""

    encoding = "utf-8"

    def write(self, _):
        raise BrokenPipeError(32, "Broken pipe")


def test_messages_that_nobody_reads_end_the_program_and_blame_no_plugin():
    with pytest.raises(Ended) as caught:
        SafeStream(Unread(), ends=True).write("x")
    assert caught.value.exit_code == 141
    assert not isinstance(caught.value, Exception)
    with pytest.raises(BrokenPipeError):
        SafeStream(Unread()).write("x")


def test_a_run_whose_messages_nobody_reads_ends_quietly_and_goes_on_later(project):
    command = f"{sys.executable} -m selectmoe_core {' '.join(LEFT_OUT)} run recipe.toml"
    project.tell("slow", "0.3")
    done = subprocess.run(
        ["bash", "-c", f"{command} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 141
    assert done.stdout.startswith("pool")
    assert done.stderr == ""
    (log,) = project.folder.glob("outputs/fake/*/*/run.log")
    assert "Traceback" not in log.read_text()
    project.untell("slow")
    said = project.run()
    assert said.code == 0, said.err


ODD = "[/x] [bold]b[/] [link=file:///etc] \x1b]0;PWN\x07 \u202egpj \x9b2J"
SHOWN = r"[/x] [bold]b[/] [link=file:///etc] \x1b]0;PWN\x07 \u202egpj \x9b2J"
PLUGIN = f"""\
from selectmoe_core import About, Component, Config, Need, hookimpl

class Odd(Config):
    \"\"\"Summary.\"\"\"
    text: str = {ODD!r}
    \"\"\"Sentence.\"\"\"

Odd.__doc__ = {ODD!r}
Odd.model_fields["text"].description = {ODD!r}

@hookimpl
def selectmoe_scorers():
    about = About({ODD!r}, {ODD!r}, {ODD!r}, {ODD!r})
    return [Component("odd", Odd, lambda config: config, about, lambda _: frozenset({{Need.POOL}}))]
"""


def test_texts_of_plugins_are_printable_and_no_markup(tmp_path, cli, monkeypatch):
    write_plugin(tmp_path, "odd", PLUGIN)
    use_site(tmp_path, monkeypatch)
    described = cli("describe", "scorer", "odd")
    assert described.code == 0, described.err
    assert " ".join(described.out.split()).count(SHOWN) >= 5
    for said in (described, cli("list", "scorer"), cli("list")):
        assert not any(steers(letter) for letter in said.out if letter != "\n")
        assert "[/x] [bold]b[/]" in said.out


def test_names_of_plugins_are_printable_and_no_markup(cli, monkeypatch):
    from selectmoe_core.cli import plugins

    entries = [EntryPoint(ODD, f"module:{ODD}", "selectmoe")]
    monkeypatch.setattr(plugins, "find_plugins", lambda: entries)
    said = cli("plugins")
    assert said.code == 0, said.err
    assert said.out.count(SHOWN) == 2


def test_only_the_bars_use_rich_which_reads_markup():
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("selectmoe_core", "plugins")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "from rich" in path.read_text() or "import rich" in path.read_text()
    ]
    assert found == ["selectmoe_core/runtime/progress.py"]
