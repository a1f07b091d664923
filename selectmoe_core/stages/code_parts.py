"""A module's source as parts: each statement, the names it binds, and the names it uses.

Only what can change a result is kept: the syntax tree of a statement, without docstrings,
comments and line numbers.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

Target = tuple[str, str]
"""A module and a name in it; the empty name is the whole module."""

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
IMPORTS = (ast.Import, ast.ImportFrom)
ALWAYS = frozenset({"FORMAT"})
"""Names that count whenever their module counts: they give the version of files on disk."""


@dataclass(frozen=True)
class Part:
    """A statement at the top of a module.

    Attributes:
        names: the names it binds; none if it runs only for its effect.
        digest: covers its syntax tree.
        uses: the names that it mentions.
        imports: what it imports, those within functions too.
        effect: whether it counts even if no statement uses the names it binds.
    """

    names: tuple[str, ...]
    digest: str
    uses: tuple[str, ...]
    imports: tuple[Target, ...]
    effect: bool


@dataclass(frozen=True)
class ModuleParts:
    """The statements of a module, and the names that it imports lazily from others."""

    parts: tuple[Part, ...]
    lazy: tuple[tuple[str, str], ...] = ()

    @cached_property
    def binding(self) -> dict[str, list[Part]]:
        """The statements that bind a name, by name."""
        found: dict[str, list[Part]] = {}
        for part in self.parts:
            for name in part.names:
                found.setdefault(name, []).append(part)
        return found

    @cached_property
    def effects(self) -> list[Part]:
        """The statements that count whenever the module is imported."""
        return [part for part in self.parts if part.effect]

    @cached_property
    def homes(self) -> dict[str, str]:
        """The module that a lazy name comes from, by name."""
        return dict(self.lazy)


@lru_cache(maxsize=4096)  # a process that makes several plans reads the same sources in each
def parts_of(source: bytes, module: str, *, package: bool) -> ModuleParts:
    """Read a module's source.

    Args:
        source: the text of its file.
        module: its dotted name, from which relative imports are taken.
        package: whether the file is a package's ``__init__.py``.
    """
    tree = ast.parse(source)
    reader = _Reader(module if package else module.rpartition(".")[0])
    parts = tuple(reader.parts(tree.body))
    lazy = tuple(_lazy_names(tree)) if b"lazy_names" in source else ()
    return ModuleParts(parts, lazy)


class _Reader:
    def __init__(self, package: str) -> None:
        self.package = package

    def parts(self, statements: Sequence[ast.stmt]) -> Iterator[Part]:
        for statement in statements:
            if _only_text(statement):
                continue
            if _only_for_types(statement):
                assert isinstance(statement, ast.If)
                yield from self.parts(statement.orelse)
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                yield from self._import(statement)
            else:
                yield self._part(statement)

    def _import(self, statement: ast.Import | ast.ImportFrom) -> Iterator[Part]:
        """Yield one part for each imported name, so that each one counts separately."""
        for alias, target in zip(statement.names, self._targets(statement), strict=True):
            bound = alias.asname or (
                alias.name if isinstance(statement, ast.ImportFrom) else alias.name.split(".")[0]
            )
            # It is not known which names a star import brings.
            names = () if alias.name == "*" else (bound,)
            text = f"import {target} as {bound}"
            yield Part(names, _digest(text), (), (target,), effect=alias.name == "*")

    def _part(self, statement: ast.stmt) -> Part:
        uses, imports = set[str](), set[Target]()
        nodes: list[ast.AST] = []
        digest = _digest(_dump(statement, nodes))
        for node in nodes:
            if isinstance(node, ast.Name):
                uses.add(node.id)
            elif isinstance(node, IMPORTS):
                imports.update(self._targets(node))
            elif isinstance(node, ast.Constant) and DOTTED.fullmatch(str(node.value)):
                imports.add((str(node.value), ""))  # some code imports a module by its name as text
        names = tuple(sorted(_bound(statement)))
        effect = not names or bool(ALWAYS & set(names))
        return Part(names, digest, tuple(sorted(uses)), tuple(sorted(imports)), effect)

    def _targets(self, statement: ast.Import | ast.ImportFrom) -> Iterator[Target]:
        for alias in statement.names:
            if isinstance(statement, ast.Import):
                yield alias.name, ""
            else:
                yield self._absolute(statement), "" if alias.name == "*" else alias.name

    def _absolute(self, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        above = self.package.split(".")
        above = above[: len(above) - statement.level + 1]
        return ".".join([*above, *filter(None, [statement.module])])


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement binds at the top of its module."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.If | ast.Try | ast.With):
        inner = [node for node in ast.iter_child_nodes(statement) if isinstance(node, ast.stmt)]
        handlers = getattr(statement, "handlers", [])
        inner += [node for handler in handlers for node in handler.body]
        return set[str]().union(*map(_bound, inner))
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    plain = [node for target in targets for node in _flat(target)]
    if not all(isinstance(node, ast.Name) for node in plain):
        return set()  # as in ``TABLE["x"] = 1``: it changes what another statement bound
    return {node.id for node in plain if isinstance(node, ast.Name)}


def _flat(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _flat(element)
    else:
        yield target


def _only_text(statement: ast.AST) -> bool:
    """Return whether a statement is only a string: a docstring, also of a field."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


def _only_for_types(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.If):
        return False
    return ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _lazy_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield names and modules of ``__getattr__ = lazy_names(__name__, {module: "name name"})``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id == "lazy_names" and isinstance(node.args[-1], ast.Dict):
            homes: dict[str, str] = ast.literal_eval(node.args[-1])
            for module, names in homes.items():
                yield from ((name, module) for name in names.split())


def _dump(node: object, nodes: list[ast.AST]) -> str:
    """Return a syntax tree as text: the same under every Python that reads the same tree.

    The nodes of the tree are added to ``nodes``, so that one walk serves both.
    """
    if isinstance(node, ast.AST):
        nodes.append(node)
        fields = []
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in ("type_comment", "kind"):
                continue
            text = f"{type(value).__name__}()" if name == "ctx" else _dump(value, nodes)
            fields.append(f"{name}={text}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join([_dump(item, nodes) for item in node if not _only_text(item)])}]"
    return repr(node)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
