"""Kernels as they are, on the CPU: on Triton's interpreter, in a child process.

Triton decides when it is first imported whether it interprets: so in another process. A module
has a test outside, marked with ``outside``, that runs the module ``inside``; what launches kernels
calls ``skip_outside`` first.
"""

import importlib.util
import os
import subprocess
import sys

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MISSING = importlib.util.find_spec("triton") is None


def outside(test):
    """Mark the test that starts the child."""
    test = pytest.mark.skipif(INTERPRETED, reason="this is the child")(test)
    return pytest.mark.skipif(MISSING, reason="triton is not installed")(test)


def inside(module, *options):
    """Run a module's tests on the interpreter; return the ended process with what it wrote."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", module, *options],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def skip_outside():
    """Skip what needs the interpreter where there is none."""
    if MISSING:
        pytest.skip("triton is not installed")
    if not INTERPRETED:
        pytest.skip("runs in the child process of test_kernels_on_the_interpreter")
