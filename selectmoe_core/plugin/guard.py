"""Wrappers around parts: an error in a plugin names that plugin."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from selectmoe_core.config import Config
from selectmoe_core.errors import PartError, PluginError, SelectMoEError, of_machine
from selectmoe_core.plugin.component import Component, Kind, Meaning
from selectmoe_core.plugin.executor import OpenExecutor, Place
from selectmoe_core.plugin.manager import named
from selectmoe_core.plugin.protocols import Need, Shard, ShardEmbedder, ShardScorer
from selectmoe_core.plugin.signatures import method_problems, protocol_of

CORE = Path(__file__).parents[1]
OPENED = {Kind.EMBEDDER: ShardEmbedder, Kind.EXECUTOR: OpenExecutor}
"""What ``open`` yields for a kind; for all others a ``ShardScorer``."""


@dataclass(frozen=True)
class Owner:
    """The owner of the code that is called.

    Attributes:
        name: the table and the component, for messages.
        plugin: the plugin that offers it.
    """

    name: str
    plugin: str

    @contextmanager
    def blamed(self, doing: str) -> Iterator[None]:
        """Turn an unexpected error in a plugin into one that names the plugin."""
        try:
            yield
        except SelectMoEError:
            raise
        except Exception as error:
            if of_machine(error, self.name) is not None:
                raise
            self._fail(doing, error)

    def breach(self, what: str) -> PluginError:
        """Return the error for a part that does not follow its protocol."""
        return PluginError(
            f"{self.name}: {what}",
            hint=f"the plugin {named(self.plugin)} must be fixed; "
            f"--disable-plugin {self.plugin} leaves it out",
        )

    def _fail(self, doing: str, error: Exception) -> NoReturn:
        first = str(error).strip().partition("\n")[0][:300]
        inner = _core_module(error.__traceback__)
        whose = f"this is an error of the plugin {named(self.plugin)}, not of selectmoe"
        if inner:
            whose = (
                f"the plugin {named(self.plugin)} called {inner}: the error is in one of the two"
            )
        raise PartError(
            f"{self.name}: {doing} failed: {type(error).__name__}: {first}",
            hint=f"{whose}; please report it with the traceback above. Finished work is kept",
            traceback="".join(traceback.format_exception(error)),
        ) from error


def build(
    component: Component[Any, Any], config: Config, plugin: str, kind: Kind, *, where: str
) -> "Guarded":
    """Build a component's part and check that it has the methods of its kind.

    Raises:
        PartError: its build function failed.
        PluginError: a method is missing or takes other arguments.
    """
    owner = Owner(f"{where} {component.name}", plugin)
    with owner.blamed("building it"):
        part = component.build(config)
    require(owner, part, protocol_of(kind, component.needs(config)))
    return Guarded(part, owner, kind)


def check_answers(
    component: Component[Any, Any], config: Config, plugin: str, *, where: str
) -> None:
    """Call a component's functions once, with its options, and check what they return.

    Raises:
        PartError: one of its functions failed.
        PluginError: one returned what the core cannot use.
    """
    owner = Owner(f"{where} {component.name}", plugin)
    for field, (fits, wanted) in ANSWERS.items():
        function = getattr(component, field)
        if function is None:
            continue
        with owner.blamed(f"{field}(config)"):
            found = function(config)
            fitting = fits(found)
        if not fitting:
            raise owner.breach(f"{field}(config) returned {_shown(found)}; expected {wanted}")


def _each(found: object, kind: type) -> bool:
    """Return whether ``found`` yields values of a kind alone; a text is none of them."""
    if isinstance(found, str) or not isinstance(found, Iterable):
        return False
    return all(isinstance(item, kind) for item in found)


def _share(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found <= 1


def _needs(found: object) -> bool:
    return isinstance(found, frozenset) and _each(found, Need)


def _meanings(found: object) -> bool:
    return isinstance(found, Mapping) and _each(found, str) and _each(found.values(), Meaning)


ANSWERS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "needs": (_needs, "a frozenset of Need"),
    "files": (lambda found: _each(found, Path), "Paths, one by one"),
    "unseen": (lambda found: _each(found, str), "strs, one by one"),
    "sources": (lambda found: _each(found, str), "strs, one by one"),
    "scores": (lambda found: _each(found, str), "strs, one by one"),
    "max_skipped": (_share, "a number from 0 to 1"),
    "damages": (lambda found: found is None or _each(found, str), "strs, one by one, or None"),
    "keeps": (_needs, "a frozenset of Need"),
    "questions": (lambda found: isinstance(found, Config), "options of the same class"),
    "details": (_meanings, "a mapping of names to Meaning"),
}
"""The functions of a component that read its options alone, each with what it must return."""


def require(owner: Owner, part: object, protocol: type) -> None:
    """Raise a ``PluginError`` if a part cannot be called as its protocol says."""
    problems = list(method_problems(part, protocol))
    if problems:
        raise owner.breach(f"{type(part).__name__} does not fit: {'; '.join(problems)}")


class Guarded:
    """Passes every call to a part and checks what it returns."""

    def __init__(self, part: object, owner: Owner, kind: Kind) -> None:
        self._part = part
        self._owner = owner
        self._kind = kind

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        value = getattr(self._part, name)
        return self._guarded(name, value) if callable(value) else value

    def _guarded(
        self, name: str, method: Callable[..., Any], place: str = ""
    ) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            where = place or _place(arguments)
            with self._owner.blamed(f"{name}(){where}"):
                result = method(*arguments, **options)
            return self._checked(name, result, where)

        return call

    def _checked(self, name: str, result: Any, place: str) -> Any:  # noqa: ANN401
        if name in ("read", "pairs"):
            return self._rows(name, result)
        if name == "open":
            return self._opened(result)
        if name == "begin":
            embeds = self._kind is Kind.EMBEDDER
            wanted = "an array" if embeds else "ShardScores"
            self._require(callable(result), name, result, f"a function that returns {wanted}")
            return self._guarded("embed" if embeds else "score", result, place)
        if name == "tokens" and result is not None:
            self._require(_token_details(result), name, result, "a TokenDetail for each example")
        if name == "place" and result is not None:
            self._require(isinstance(result, Place), name, result, "a Place or None")
        if expected := _expected(name):
            kind, written = expected
            self._require(isinstance(result, kind), name, result, written)
        return result

    def _require(self, fits: bool, name: str, result: object, wanted: str) -> None:
        if not fits:
            raise self._owner.breach(f"{name}() returned {_shown(result)}; expected {wanted}")

    def _rows(self, name: str, rows: Any) -> Iterator[Any]:  # noqa: ANN401
        from selectmoe_core.data.examples import RawExample, RawPair, Reject

        kind = RawPair if name == "pairs" else RawExample
        wanted = f"{kind.__name__} and Reject, one by one"
        self._require(hasattr(rows, "__iter__"), name, rows, wanted)
        count, iterator = 0, iter(rows)
        while True:
            try:
                row = next(iterator)
            except StopIteration:
                return
            except Exception:
                with self._owner.blamed(f"{name}() at row {count + 1}"):
                    raise
            count += 1
            if not isinstance(row, kind | Reject):
                what = f"{name}() yielded {_shown(row)} as row {count}"
                raise self._owner.breach(f"{what}; expected {kind.__name__} or Reject")
            yield row

    @contextmanager
    def _opened(self, manager: Any) -> Iterator["Guarded"]:  # noqa: ANN401
        managed = all(hasattr(type(manager), name) for name in ("__enter__", "__exit__"))
        self._require(managed, "open", manager, "a context manager (see contextlib)")
        with self._owner.blamed("open()"):
            inner = manager.__enter__()
        try:
            require(self._owner, inner, OPENED.get(self._kind, ShardScorer))
            yield Guarded(inner, self._owner, self._kind)
        except BaseException as error:
            # An error that was raised inside the block is not an error of closing.
            if not manager.__exit__(type(error), error, error.__traceback__):
                raise
        else:
            with self._owner.blamed("closing it"):
                manager.__exit__(None, None, None)


def _expected(name: str) -> tuple[type, str] | None:
    """Return the type that a method must return, and its name in messages."""
    import numpy as np

    from selectmoe_core.data.marks import Marks
    from selectmoe_core.data.scores import Finish, ShardScores
    from selectmoe_core.data.selection import Selection

    if name in ("score", "combine"):
        return ShardScores, "ShardScores"
    if name in ("convert", "verify", "train", "evaluate"):
        return Mapping, "a mapping of facts"
    others: dict[str, tuple[type, str]] = {
        "select": (Selection, "a Selection"),
        "finish": (Finish, "a Finish"),
        "mark": (Marks, "Marks"),
        "embed": (np.ndarray, "a numpy array [examples, width]"),
    }
    return others.get(name)


def _token_details(result: object) -> bool:
    from selectmoe_core.data.shown import TokenDetail

    return isinstance(result, list | tuple) and all(isinstance(one, TokenDetail) for one in result)


def _place(arguments: tuple[Any, ...]) -> str:
    """Return which rows a call is about, if its arguments show that."""
    shard = arguments[0] if arguments else None
    if not isinstance(shard, Shard) or not len(shard.rows):
        return ""
    return f" for the pool's rows {int(shard.rows[0])} to {int(shard.rows[-1])}"


def _core_module(place: TracebackType | None) -> str:
    """Return the module of the core in which an error arose, if a plugin called into it."""
    found = ""
    for frame, _ in traceback.walk_tb(place):
        path = Path(frame.f_code.co_filename)
        if path == Path(__file__):
            found = ""
        elif path.is_relative_to(CORE):
            found = str(frame.f_globals.get("__name__", ""))
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
