"""Sources of one-module plugins, good and broken, for the tests that install them."""

GOOD = '''
from contextlib import nullcontext
from selectmoe_core import Component, Config, hookimpl


class GoodConfig(Config):
    """Score nothing."""


@hookimpl
def selectmoe_scorers():
    return [Component("good-score", GoodConfig, lambda config: nullcontext())]
'''

BROKEN: dict[str, tuple[str, str]] = {
    "import": ("import nowhere_at_all", "cannot be imported: ModuleNotFoundError"),
    "syntax": ("def broken(:", "cannot be imported: SyntaxError"),
    "raises": ("raise RuntimeError('at import')", "RuntimeError: at import"),
    "stale name": ("from selectmoe_core import nothing_like_this", "cannot be imported"),
    "misspelt hook": (
        GOOD.replace("selectmoe_scorers", "selectmoe_scorer"),
        "implements the hook 'selectmoe_scorer', which does not exist",
    ),
    "stale signature": (
        GOOD + "\n\n@hookimpl\ndef selectmoe_run_started(run, extra):\n    pass\n",
        "does not fit",
    ),
    "offers nothing to go through": (
        GOOD.replace("return [Component", "return 3 or [Component"),
        "selectmoe_scorers must return a list of what it offers, got 3",
    ),
    "hook fails": (
        GOOD.replace("return [Component", "raise KeyError('x')\n    return [Component"),
        "selectmoe_scorers failed: KeyError",
    ),
    "no component": (GOOD.replace("return [Component", "return ['x', Component"), "offers 'x'"),
    "another interface": (
        GOOD + "\napi = 2\n",
        r"is written for version 2 of the plugin interface \(api\), and this .* has version 1",
    ),
    "no version of the interface": (GOOD + "\napi = 'v1'\n", "is written for version 'v1'"),
    "the same name twice": (
        GOOD.replace("    return [", "    return 2 * ["),
        "'good-score' is offered twice",
    ),
}
"""What is wrong: the module's source, and what must be said of it."""
