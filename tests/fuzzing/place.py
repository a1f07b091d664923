"""The place of a case: plugins that are found, a command line to call, neighbours to watch."""

import io
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "tests" / "helpers"
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
LONGEST = 1200
"""Characters of an error's line that a person may still read."""


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def find_plugins(site: Path) -> None:
    """Let this process and its children find our plugins and the chain of fakes.

    A plain checkout is enough: what ``pip install`` would have left is written into ``site``.
    """
    site.mkdir(parents=True, exist_ok=True)
    _install(site, "fuzz-fakes", {"fake": "fuzz_fakes"})
    (site / "fuzz_fakes.py").write_bytes((HELPERS / "fake_chain.py").read_bytes())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {entry.name for entry in entry_points(group="selectmoe")}
    if "basic" not in names:
        _install(site, project["name"], project["entry-points"]["selectmoe"], project["version"])
    paths = [str(path) for path in (site, ROOT, ROOT / "plugins")]
    sys.path[:0] = [path for path in paths if path not in sys.path]
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, before]))


def remember_what_stays() -> None:
    """Read once for all cases of this process what no case changes: plugins, and our sources.

    Each command of a case would read them again, and nearly all of its time would go into that.
    """
    from functools import cache

    from selectmoe_core.plugin import manager
    from selectmoe_core.stages import code

    for module, name in ((manager, "find_plugins"), (manager, "_owner"), (code, "parts_of")):
        setattr(module, name, cache(getattr(module, name)))


def _install(site: Path, name: str, points: dict[str, str], version: str = "1.0") -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(head, encoding="utf-8")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (folder / "entry_points.txt").write_text(f"[selectmoe]\n{lines}", encoding="utf-8")


def settle_environment(home: Path) -> None:
    """Keep the libraries offline, quiet, on one thread, and their caches in ``home``."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "CUDA_VISIBLE_DEVICES": "",
    }


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make ``folder`` the current one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(*arguments: str) -> Said:
    """Call the command line in this process."""
    from selectmoe_core.cli import call as command_line

    before = sys.stdout, sys.stderr
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogatepass") for _ in "12")
    sys.stdout, sys.stderr = out, err
    try:
        code = command_line(list(arguments))
    finally:
        sys.stdout, sys.stderr = before
    return Said(code, _text(out), _text(err))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    content = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return content.decode("utf-8", "surrogatepass")


def faults_of(said: Said, allowed: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with how a command ended, as kind and description."""
    everything = f"exit code {said.code}\n{said.out[-1500:]}\n{said.err[-4500:]}"
    if "Traceback (most recent call last)" in said.err:
        yield f"traceback: {_last_frame(said.err)}", everything
    elif said.code not in allowed:
        yield f"exit code {said.code}", everything
    lines = [line for line in said.err.splitlines() if line.startswith("Error: ")]
    if said.code in allowed and said.code:
        if not lines:
            yield "no message", everything
        elif "Hint: " not in said.err and "Usage: " not in said.err and "--help" not in said.err:
            yield "no hint", everything
    if max(map(len, lines), default=0) > LONGEST:
        yield "a message too long to read", everything
    for name, text in (("stdout", said.out), ("stderr", said.err)):
        if found := UNPRINTABLE.search(text.replace("\r\n", "\n")):
            yield f"control characters on {name}", f"{found[0]!r}\n{everything!r}"


def _last_frame(err: str) -> str:
    lines = err.splitlines()
    frames = [line.strip() for line in lines if line.strip().startswith("File ")]
    ours = [line for line in frames if "selectmoe_" in line] or frames or ["?"]
    match = re.search(r'([^/"]+/[^/"]+)", line \d+, in (\S+)', ours[-1])
    named = [line for line in lines if re.match(r"^[\w.]*(Error|Exception|Exit|Timeout)\b", line)]
    error = named[-1].partition(":")[0] if named else "?"
    return f"{error} at {match[1]}:{match[2]}" if match else error


def fingerprint(folder: Path, *without: Path) -> dict[str, str]:
    """Return what every file, link and folder below ``folder`` is, but what lies in ``without``."""
    left_out = {os.fspath(path) for path in without}
    found: dict[str, str] = {}
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if os.path.join(where, name) not in left_out]
        for name in (*folders, *files):
            path = os.path.join(where, name)
            if path not in left_out:
                found[os.path.relpath(path, folder)] = _look(Path(path))
    return found


def _look(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_dir():
        return "folder"
    if not path.is_file():
        return "special"
    status = path.stat()
    if status.st_size > 1 << 20:
        return f"{status.st_size} bytes, {status.st_mtime_ns}, {status.st_ino}"
    return sha256(path.read_bytes()).hexdigest()


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return what differs between two fingerprints."""
    names = sorted({*before, *after})
    return [
        f"{n!r}: {before.get(n)} -> {after.get(n)}" for n in names if before.get(n) != after.get(n)
    ]
