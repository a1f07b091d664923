"""The numbers of the report's pictures: the page draws them with plain HTML and SVG.

Pictures have no size of their own: widths are in percent, so that they fit a phone and paper.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selectmoe_core.report.summary import (
    EvaluationSummary,
    Histograms,
    ScoreSummary,
    TrainingSummary,
)
from selectmoe_core.report.wording import number

WIDTH, HEIGHT = 100.0, 40.0
"""The coordinates in which a picture is drawn before it is stretched."""
ARMS = {"selected": "own", "random": "random", "base": "base"}
"""The style of the arms that most runs have; others are numbered."""
LAYERED = "/"
"""A metric ``name/layer_03`` is one line in the panel ``name``."""
METRICS = (
    *("pair_accuracy", "bce", "margin", "loss", "cross_entropy", "constraint", "balance"),
    *("trash_share", "clean_trash_mass", "corrupted_trash_mass", "learning_rate", "grad_norm"),
)
"""The order of the panels: what the objective is about comes first."""
MAX_PANELS = 9
NOISY = 40
"""Longer curves are drawn with a moving mean over a twentieth of their points."""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its text, and its place in percent."""

    text: str
    place: float


def ticks(low: float, high: float, most: int = 5) -> list[Tick]:
    """Return round numbers between two ends, at most ``most`` of them."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [Tick(number(low, 3), 50.0)]
    raw = span / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    values = [place * step for place in range(first, last + 1)]
    return [Tick(f"{value:g}", 100 * (value - low) / span) for value in map(_clean, values)]


def _clean(value: float) -> float:
    return 0.0 if abs(value) < 1e-12 else float(f"{value:.10g}")


def steps_path(heights: np.ndarray, largest: float) -> str:
    """Return an SVG path: the area under a histogram, in the coordinates of a picture."""
    if not largest or not len(heights):
        return ""
    width = WIDTH / len(heights)
    parts = [f"M0 {HEIGHT:g}"]
    for place, height in enumerate(heights):
        y = _short(HEIGHT - HEIGHT * float(height) / largest)
        parts.append(f"L{_short(place * width)} {y}L{_short((place + 1) * width)} {y}")
    return "".join([*parts, f"L{WIDTH:g} {HEIGHT:g}Z"])


def line_path(x: np.ndarray, y: np.ndarray, box: tuple[float, float, float, float]) -> str:
    """Return an SVG path through points; ``box`` is left, right, bottom and top in their units."""
    left, right, bottom, top = box
    across, up = (right - left) or 1.0, (top - bottom) or 1.0
    points = [
        f"{_short(WIDTH * (a - left) / across)} {_short(HEIGHT - HEIGHT * (b - bottom) / up)}"
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
        if math.isfinite(a) and math.isfinite(b)
    ]
    if len(points) == 1:  # a single point is drawn as a short line
        return f"M{points[0]}h1"
    return f"M{'L'.join(points)}" if points else ""


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Ridge:
    """The distribution of a group: what the pool has, and what of it was chosen."""

    name: str
    pool: str
    kept: str
    median: float | None
    scored: int


@dataclass(frozen=True)
class Ridges:
    """Distributions over one axis; ``shown`` are drawn at once, ``folded`` on request."""

    ticks: list[Tick]
    shown: tuple[Ridge, ...]
    folded: tuple[Ridge, ...]


FEW = 12
"""Up to this many sources are shown at once."""
ENDS = 4
"""Of more sources, the ones with the highest and the lowest median that are shown at once."""


def ridges(scores: ScoreSummary) -> Ridges | None:
    """Return the distribution of a score, of the whole pool and source by source."""
    counts = scores.histograms
    if counts is None:
        return None
    edges = counts.edges
    rows = [_ridge("all sources", counts.pool.sum(axis=0), counts.kept.sum(axis=0), None, counts)]
    rows += [
        _ridge(source.name, counts.pool[place], counts.kept[place], source.median, counts)
        for place, source in enumerate(scores.sources)
    ]
    if len(scores.sources) == 1:
        rows = rows[1:]
    if len(rows) <= FEW + 1:
        return Ridges(ticks(edges[0], edges[-1]), tuple(rows), ())
    shown = (rows[0], *rows[1 : ENDS + 1], *rows[-ENDS:])
    return Ridges(ticks(edges[0], edges[-1]), shown, tuple(rows[ENDS + 1 : -ENDS]))


def _ridge(
    name: str, pool: np.ndarray, kept: np.ndarray, median: float | None, counts: Histograms
) -> Ridge:
    largest = float(pool.max()) if len(pool) else 0.0
    span = float(counts.edges[-1] - counts.edges[0]) or 1.0
    place = None
    if median is not None and math.isfinite(median):
        place = min(100.0, max(0.0, 100 * (median - float(counts.edges[0])) / span))
    shown = steps_path(kept, largest) if kept.any() else ""
    return Ridge(name, steps_path(pool, largest), shown, place, int(pool.sum()))


@dataclass(frozen=True)
class Line:
    """A line of a panel: its name, its style and its path."""

    name: str
    style: str
    path: str
    last: float


@dataclass(frozen=True)
class Panel:
    """A small picture of curves over the steps of a training."""

    title: str
    note: str
    lines: tuple[Line, ...]
    low: float
    high: float
    first_step: float
    last_step: float

    @property
    def named(self) -> int:
        """How many curves there are."""
        return sum(bool(line.name) for line in self.lines)


def training_panels(training: TrainingSummary) -> tuple[tuple[Panel, ...], tuple[str, ...]]:
    """Return one panel for each metric, and the names of metrics that are not drawn.

    A metric that never changed is no curve, and a loss whose weight is 0 is not the objective's.
    """
    groups: dict[str, list[str]] = {}
    for name in training.curves:
        groups.setdefault(name.split(LAYERED, maxsplit=1)[0], []).append(name)
    ranked = sorted(groups, key=lambda name: (_rank(name), name))
    flat = tuple(
        name
        for name in ranked
        if name in training.unweighted or _never_changed(training, groups[name])
    )
    moving = [name for name in ranked if name not in flat]
    panels = [_metric_panel(training, name, groups[name]) for name in moving[:MAX_PANELS]]
    return tuple(panels), flat


def _rank(name: str) -> int:
    return METRICS.index(name) if name in METRICS else len(METRICS)


def _never_changed(training: TrainingSummary, names: Sequence[str]) -> bool:
    curves = [training.curves[name].values for name in names]
    return all(len(values) > 1 and np.ptp(values) == 0 for values in curves)


def _metric_panel(training: TrainingSummary, title: str, names: Sequence[str]) -> Panel:
    layers = sorted(name for name in names if LAYERED in name)
    note = f"thick: mean; thin: {len(layers)} layers" if layers and len(names) > len(layers) else ""
    ordered = [*layers, *(name for name in names if name not in layers)]
    curves = {name: (training.curves[name].steps, training.curves[name].values) for name in ordered}
    styles = {name: "thin" if name in layers else "own" for name in ordered}
    return _panel(title.replace("_", " "), note, curves, styles)


def losses_panel(trainings: Sequence[TrainingSummary]) -> Panel | None:
    """Return the training loss of every arm in one panel."""
    own = [training for training in trainings if "loss" in training.curves]
    if not own:
        return None
    names = [", ".join(training.arms) or training.key for training in own]
    curves = {
        name: (training.curves["loss"].steps, training.curves["loss"].values)
        for name, training in zip(names, own, strict=True)
    }
    styles = {
        name: next((ARMS[arm] for arm in training.arms if arm in ARMS), f"other-{place % 3}")
        for place, (name, training) in enumerate(zip(names, own, strict=True))
    }
    return _panel("training loss", "", curves, styles)


def _panel(
    title: str,
    note: str,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    styles: Mapping[str, str],
) -> Panel:
    steps = np.concatenate([own[0] for own in curves.values()])
    values = np.concatenate([own[1] for own in curves.values()])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    first, last = float(steps.min()), float(steps.max())
    box = (first, last, low, high)
    lines = []
    for name, (x, y) in curves.items():
        smooth = moving_mean(y)
        if smooth is not y and styles[name] != "thin":
            lines.append(Line("", f"{styles[name]} raw", line_path(x, y, box), float(y[-1])))
        lines.append(Line(name, styles[name], line_path(x, smooth, box), float(smooth[-1])))
    return Panel(title, note, tuple(lines), low, high, first, last)


def moving_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the points around each; fewer than ``NOISY`` points stay as they are."""
    if len(values) <= NOISY:
        return values
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


@dataclass(frozen=True)
class Mark:
    """One arm's result, or difference, with its interval: places in percent of the width."""

    arm: str
    style: str
    place: float
    left: float
    width: float
    text: str


@dataclass(frozen=True)
class Dots:
    """A task with the marks of its arms, and the place of chance."""

    task: str
    marks: tuple[Mark, ...]
    chance: float | None


@dataclass(frozen=True)
class DotPlot:
    """All tasks over one axis."""

    ticks: list[Tick]
    rows: tuple[Dots, ...]
    arms: tuple[tuple[str, str], ...]


def arm_styles(arms: Sequence[str]) -> dict[str, str]:
    """Return the style of each arm."""
    return {arm: ARMS.get(arm, f"other-{place % 3}") for place, arm in enumerate(arms)}


def dot_plot(evaluation: EvaluationSummary, z: float) -> DotPlot | None:
    """Return the results with 95 % intervals, where all tasks share the scale of shares."""
    rows = [row for row in evaluation.tasks if row.chance is not None and row.results]
    if not rows:
        return None
    styles = arm_styles(evaluation.arms)
    ends = list(_ends(evaluation, z))
    low, high = max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return min(100.0, max(0.0, 100 * (value - low) / span))

    found = []
    for row in rows:
        marks = []
        for arm in (arm for arm in evaluation.arms if arm in row.results):
            result = row.results[arm]
            error = z * (result.stderr or 0.0)
            left, right = place(result.value - error), place(result.value + error)
            text = f"{arm}: {100 * result.value:.1f} %"
            marks.append(Mark(arm, styles[arm], place(result.value), left, right - left, text))
        found.append(Dots(row.task, tuple(marks), place(row.chance or 0.0)))
    shown = [Tick(f"{100 * float(t.text):g} %", t.place) for t in ticks(low, high, 7)]
    return DotPlot(shown, tuple(found), tuple(styles.items()))


def _ends(evaluation: EvaluationSummary, z: float) -> Iterator[float]:
    for row in evaluation.tasks:
        if row.chance is None:
            continue
        yield row.chance
        for result in row.results.values():
            error = z * (result.stderr or 0.0)
            yield from (result.value - error, result.value + error)
