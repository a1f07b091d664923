"""Fixtures: a project with a small pool, a chain of fakes as a plugin, the command line."""

import importlib.util
import json
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

import pluggy
import pytest
from fake_recipe import RECIPE
from hypothesis import HealthCheck, settings

from selectmoe_core.plugin.manager import empty_manager

HERE = Path(__file__).parent
ROOT = HERE.parent

if "PYTEST_XDIST_WORKER" in os.environ:
    # With a process for each core, more threads than one would wait for each other all the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Commands write into files here, and nothing about the terminal of whoever tests may show there.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)

# A busy machine is no finding: no deadlines. Without SELECTMOE_FUZZ the examples are the same ones
# in every run, as in the fuzzer's short form; with it they are new ones.
settings.register_profile(
    "house",
    deadline=None,
    database=None,
    derandomize="SELECTMOE_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With ``-n`` one process runs all tests of a file: what they share is made once, not in each.

    Another ``--dist`` is followed.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # in the order above
    return LoadFileScheduling(config, log)


SOURCES = ("dolly", "cot", "oasst1")
ROWS = 40


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Project:
    """A working folder with a recipe, its pool and its model, and a switchboard for the fakes."""

    folder: Path
    control: Path
    call: Callable[..., Said] = field(repr=False)

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def store(self) -> Path:
        return self.folder / "outputs" / "store"

    def run(self, *arguments: object) -> Said:
        return self.call("run", "recipe.toml", *arguments)

    def plan(self, *arguments: object) -> dict:
        said = self.call("plan", "recipe.toml", "--json", *arguments)
        assert said.code == 0, said.err
        return json.loads(said.out)

    def digests(self, *arguments: object) -> dict[str, str]:
        return {node["key"]: node["digest"] for node in self.plan(*arguments)["nodes"]}

    def edit(self, old: str, new: str) -> None:
        text = self.recipe.read_text()
        assert old in text
        self.recipe.write_text(text.replace(old, new))

    def tell(self, name: str, text: str = "") -> None:
        (self.control / name).write_text(text)

    def untell(self, name: str) -> None:
        (self.control / name).unlink()

    def calls(self) -> list[str]:
        """What the fakes were asked to do since the last look."""
        path = self.control / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def runs(self) -> list[Path]:
        return sorted(
            (path.parent for path in self.folder.glob("outputs/fake/*/*/recipe.toml")),
            key=lambda folder: folder.stat().st_ctime_ns,
        )


def rows_of(count: int, start: int = 0) -> list[dict]:
    """Distinct rows over three sources, answers of different lengths."""
    return [
        {
            "dataset": SOURCES[number % 3],
            "id": f"row-{number}",
            "messages": [
                {"role": "user", "content": f"Question {number}?"},
                {"role": "assistant", "content": f"Answer {number}" + "." * (number * 7 % 53)},
            ],
        }
        for number in range(start, start + count)
    ]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_plugin(site: Path, name: str, source: str, *, distribution: str = "") -> None:
    """Install a plugin of one module by hand: what ``pip install`` would leave in ``site``."""
    distribution = distribution or f"{name}-dist"
    site.mkdir(parents=True, exist_ok=True)
    module = f"{distribution.replace('-', '_')}_module"
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    folder = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    (folder / "entry_points.txt").write_text(f"[selectmoe]\n{name} = {module}\n")


def use_site(site: Path, patch: pytest.MonkeyPatch) -> None:
    """Let this process and its children find what is installed in ``site``."""
    patch.syspath_prepend(str(site))
    before = os.environ.get("PYTHONPATH", "")
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), before])))
    for path in site.glob("*.py"):
        patch.delitem(sys.modules, path.stem, raising=False)


@pytest.fixture(autouse=True)
def _drawn_from_torch(request: pytest.FixtureRequest) -> None:
    """What a test draws from torch depends on no test that the same process ran before."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals reach the test, also where pytest runs under nohup or in the background."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def narrow_umask() -> Iterator[int]:
    """New files are for the user and the group alone; gives the mode that they then have."""
    before = os.umask(0o027)
    yield 0o640
    os.umask(before)


@pytest.fixture
def manager() -> pluggy.PluginManager:
    """A manager that knows the hooks and no plugin."""
    return empty_manager()


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs the command line in this process; what its children write is captured too."""

    def run(*arguments: object) -> Said:
        from selectmoe_core.cli import call

        capfd.readouterr()
        code = call([*LEFT_OUT, *map(str, arguments)])
        written = capfd.readouterr()
        return Said(code, written.out, written.err)

    return run


def _not_there() -> Iterator[str]:
    for entry in entry_points(group="selectmoe"):
        try:
            there = importlib.util.find_spec(entry.module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            yield from ("--disable-plugin", entry.name)


LEFT_OUT = tuple(_not_there())


@pytest.fixture(scope="session")
def fake_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the chain of fakes is installed."""
    site = tmp_path_factory.mktemp("site")
    write_plugin(site, "fake", (HERE / "helpers" / "fake_chain.py").read_text(encoding="utf-8"))
    return site


@pytest.fixture
def project(
    tmp_path: Path, fake_site: Path, cli: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> Project:
    """The working folder of a recipe whose chain is made of fakes; it is the current folder."""
    folder, control = tmp_path / "project", tmp_path / "control"
    folder.mkdir()
    control.mkdir()
    use_site(fake_site, monkeypatch)
    monkeypatch.setenv("FAKE_CHAIN", str(control))
    monkeypatch.chdir(folder)
    write_rows(folder / "pool.jsonl", rows_of(ROWS))
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text('{"model_type": "fake"}')
    (folder / "base" / "model.safetensors").write_bytes(b"weights")
    (folder / "recipe.toml").write_text(RECIPE)
    return Project(folder, control, cli)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data that ``SELECTMOE_DATA`` names."""
    path = Path(os.environ.get("SELECTMOE_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"the real data is not at {path}: set SELECTMOE_DATA")
    return path


def forget_modules(*prefixes: str) -> None:
    """Drop modules from memory, so that the next import loads them anew."""
    for name in list(sys.modules):
        if name.startswith(prefixes):
            del sys.modules[name]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy_tree(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
