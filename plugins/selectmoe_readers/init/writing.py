"""The first recipe, from its template."""

import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from selectmoe_readers.init.look import Look

NANO, FULL = "bundled:nano-olmoe", "allenai/OLMoE-1B-7B-0125"
"""The mixture of experts that scores: offline on a CPU, and at full size on a GPU."""
WARMED = 4000
"""Rows that are enough for a first warm-up."""

AT_MOST = 0.5
"""The largest share of a pool that warm-up reads: `audit` needs rows that it did not read."""


BUNDLED = "bundled:"


@dataclass(frozen=True)
class Models:
    """The models of a recipe, as the user named them.

    Attributes:
        target: the model to fine-tune; without one the recipe ends with the selection.
        given: the model that scores, if the user named one.
    """

    target: str | None = None
    given: str | None = None

    @property
    def scorer(self) -> str:
        """The model that scores: a bundled target is for trying things out, so it is tiny too."""
        tiny = self.target is None or self.target.startswith(BUNDLED)
        return self.given or (NANO if tiny else FULL)

    @property
    def tiny(self) -> bool:
        """Whether the model that scores comes with selectmoe and runs on the CPU."""
        return self.scorer.startswith(BUNDLED)

    @property
    def needs(self) -> str:
        """What the recipe needs, in words."""
        if not self.tiny:
            return "a GPU of about 40 GB for the model that scores, from the hub or a folder"
        if self.target is None or self.target.startswith(BUNDLED):
            return "nothing: tiny bundled models, on the CPU"
        return "the model to fine-tune; for a large one a GPU"


def recipe_text(
    look: Look, out: Path, *, models: Models, tasks: Sequence[str], length: tuple[int, int]
) -> str:
    """Return a recipe for what was found.

    Args:
        look: what was found.
        out: the recipe's file: its paths start from there.
        models: the models that score and learn.
        tasks: the tasks to evaluate on.
        length: ``chat.max_length``, and how many rows of the sample are longer.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"toml": toml, "comment": comment}
    template = files("selectmoe_readers.init").joinpath("recipe.toml.jinja").read_text("utf-8")
    ends = "fine-tuned adapter" if models.target else "`selected_data.jsonl`"
    whose = f", for {models.target}" if models.target else ""
    named = ", ".join(path.name for path in _paths(look)[:3])
    return environment.from_string(template).render(
        name=name_of(out),
        file=out,
        title=f"{name_of(out)}: the best of {look.rows:,} rows of {named}{whose}.",
        model=models.target,
        tasks=list(tasks),
        scorer=models.scorer,
        tiny=models.tiny,
        needs=models.needs,
        expect=f"a report in outputs/{name_of(out)}, and a {ends}",
        max_length=length[0],
        truncated=length[1],
        sampled=len(look.sample),
        reader=look.reader,
        options=_options(look, out.absolute().parent),
        subset_ratio=min(AT_MOST, max(0.05, round(WARMED / max(look.rows, 1), 2))),
    )


def comment(text: str, label: str = "") -> str:
    """Return a comment of the recipe's head, with its label, on lines that fit a terminal."""
    start = f"# {label:<15} " if label else "# "
    then = "#".ljust(len(start))
    return textwrap.fill(text, 80, initial_indent=start, subsequent_indent=then)


def name_of(out: Path) -> str:
    """Return a recipe's name from that of its file."""
    name = re.sub(r"[^a-z0-9._-]+", "-", out.stem.lower()).strip("-._")
    return name[:100] or "mine"


def toml(value: Any) -> str:  # noqa: ANN401
    """Return a value as TOML on one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else toml(name)


def _paths(look: Look) -> list[Path]:
    return list(look.config.path)  # type: ignore[attr-defined]


def _options(look: Look, folder: Path) -> dict[str, Any]:
    """Return the reader's options that differ from their defaults, paths from the recipe on."""
    given = look.config.model_dump(mode="json", exclude_unset=True, exclude={"path"})
    paths = [os.path.relpath(path.absolute(), folder) for path in _paths(look)]
    columns = given.pop("columns", None)
    options: dict[str, Any] = {"path": paths[0] if len(paths) == 1 else paths, **given}
    return {**options, "columns": columns} if columns else options
