"""Fresh virtual environments that borrow the packages of the running one: seconds, no network."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LEFT_OVER = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Settings of the running environment that must not reach the new one."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    python: Path

    def call(self, *command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run its interpreter with some arguments, in a folder."""
        settings = {name: value for name, value in os.environ.items() if name not in LEFT_OVER}
        return subprocess.run(
            [str(self.python), *map(str, command)],
            cwd=cwd,
            env=settings,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def selectmoe(self, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run ``selectmoe`` as it is installed there."""
        return self.call("-m", "selectmoe_core", *arguments, cwd=cwd)

    def install(self, wheel: Path) -> None:
        """Install a wheel, without its dependencies and without any index."""
        options = ("--no-deps", "--no-index", "--ignore-installed", "--quiet")
        done = self.call("-m", "pip", "install", *options, wheel, cwd=wheel.parent)
        assert done.returncode == 0, done.stderr


def fresh_environment(folder: Path, *, editable: bool) -> Environment:
    """Make an environment that also sees the packages of the running one.

    Args:
        folder: where it goes.
        editable: see editable installs too; otherwise a checkout is out of sight.
    """
    venv.create(folder, with_pip=importlib.util.find_spec("pip") is None, symlinks=os.name != "nt")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = folder / ("Lib" if os.name == "nt" else f"lib/{name}") / "site-packages"
    borrowed = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    lines = [f"import site; site.addsitedir({path!r})" if editable else path for path in borrowed]
    (own / "borrowed.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Environment(folder / ("Scripts" if os.name == "nt" else "bin") / "python")


def build(project: Path, out: Path, kind: str = "wheel") -> Path:
    """Build a project with the tools that are installed, and return the file."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(out)]
    done = subprocess.run(
        [*command, str(project)], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built
