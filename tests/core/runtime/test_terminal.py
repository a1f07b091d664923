"""What a terminal is shown cannot steer it."""

import io
import json
import logging
import subprocess
import sys
import unicodedata

import pytest

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


@pytest.mark.skipif(sys.platform != "linux", reason="needs script(1)")
def test_bars_show_labels_as_they_are_and_let_nothing_through(tmp_path):
    program = tmp_path / "bars.py"
    program.write_text(BARS)
    log = tmp_path / "log"
    command = f"{sys.executable} {program}"
    subprocess.run(["script", "-qec", command, str(log)], check=True, capture_output=True)
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
