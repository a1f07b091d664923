"""The report's pictures, each an inline SVG."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from selectmoe_core.report.summary import (
    EvaluationSummary,
    Histograms,
    ScoreSummary,
    SelectionSummary,
    SourceScores,
    TrainingSummary,
)
from selectmoe_core.report.svg import (
    INK,
    MUTED,
    OWN,
    PLAIN,
    RANDOM,
    SERIES,
    WIDTH,
    drawing,
    new_figure,
    to_svg,
)

RIDGES = 12
"""Up to this many sources are drawn as histograms, more as box plots."""
ROW = 0.27
NAME = 28
MAX_PANELS = 6
LAYERED = "/"
"""A metric ``name/layer_03`` is one line in the panel ``name``."""
ARM_COLOURS = {"selected": OWN, "random": RANDOM, "base": PLAIN}


def score_picture(scores: ScoreSummary, prefix: str) -> str | None:
    """Draw the scores per source, the highest median on top."""
    drawn = [source for source in scores.sources if source.scored]
    if not drawn or scores.histograms is None:
        return None
    label = f"Distribution of the score {scores.key} in {len(drawn)} sources"
    with drawing():
        figure = _ridges(drawn, scores.histograms) if len(drawn) <= RIDGES else _boxes(drawn)
        return to_svg(figure, label, prefix)


def _ridges(sources: Sequence[SourceScores], counts: Histograms) -> Any:  # noqa: ANN401
    figure = new_figure(0.75 + 0.5 * len(sources))
    axes = figure.subplots()
    for place, source in enumerate(sources):
        base = len(sources) - 1 - place
        scale = 0.82 / counts.pool[place].max() if counts.pool[place].any() else 0.0
        for heights, colour, opacity in (
            (counts.pool[place], PLAIN, 0.45),
            (counts.kept[place], OWN, 0.9),
        ):
            axes.stairs(
                base + heights * scale,
                counts.edges,
                baseline=base,
                fill=True,
                color=colour,
                alpha=opacity,
                linewidth=0,
            )
        axes.plot([source.median] * 2, [base, base + 0.3], color=INK, linewidth=1.6)
    _name_rows(axes, [source.name for source in sources])
    axes.set_ylim(-0.1, len(sources) + 0.1)
    _legend(figure, [("pool", PLAIN), ("selected", OWN)] if counts.kept.any() else [])
    axes.set_xlabel("score (higher is better); the tick marks the median")
    return figure


def _boxes(sources: Sequence[SourceScores]) -> Any:  # noqa: ANN401
    figure = new_figure(0.8 + ROW * len(sources))
    axes = figure.subplots()
    for place, source in enumerate(sources):
        y = len(sources) - 1 - place
        axes.plot([source.low, source.high], [y, y], color=MUTED, linewidth=0.9)
        axes.barh(y, source.third - source.first, 0.55, left=source.first, color=OWN, alpha=0.4)
        axes.plot([source.median] * 2, [y - 0.28, y + 0.28], color=INK, linewidth=1.6)
    _name_rows(axes, [source.name for source in sources])
    axes.set_ylim(-0.7, len(sources) - 0.3)
    axes.set_xlabel("score (higher is better): 5, 25, 50, 75 and 95 % quantiles")
    return figure


def composition_picture(selection: SelectionSummary, prefix: str) -> str:
    """Draw each source's share of the pool and of the selection."""
    groups = selection.sources
    with drawing():
        figure = new_figure(0.8 + 1.35 * ROW * len(groups))
        axes = figure.subplots()
        places = np.arange(len(groups) - 1, -1, -1)
        axes.barh(
            places + 0.2, [100 * group.pool_share for group in groups], 0.36, color=PLAIN, alpha=0.6
        )
        axes.barh(places - 0.2, [100 * group.kept_share for group in groups], 0.36, color=OWN)
        _name_rows(axes, [group.name for group in groups])
        axes.set_ylim(-0.7, len(groups) - 0.3)
        axes.set_xlabel("share in %")
        _legend(figure, [("of the pool", PLAIN), ("of the selection", OWN)])
        label = "Share of each source in the pool and in the selection"
        return to_svg(figure, label, prefix)


def training_picture(training: TrainingSummary, prefix: str) -> str | None:
    """Draw the metrics of one training in small panels."""
    panels: dict[str, list[str]] = {}
    for name in training.curves:
        panels.setdefault(name.split(LAYERED, maxsplit=1)[0], []).append(name)
    ranked = sorted(panels, key=lambda name: (_rank(name), name))[:MAX_PANELS]
    if not ranked:
        return None
    columns = min(len(ranked), 3)
    rows = math.ceil(len(ranked) / columns)
    with drawing():
        figure = new_figure(2.1 * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, name in zip(grid.flat, ranked, strict=False):
            _panel(axes, training, name, panels[name])
        for axes in grid.flat[len(ranked) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        return to_svg(figure, f"Training curves of {training.key}", prefix)


def _rank(name: str) -> int:
    order = ("loss", "cross_entropy", "constraint", "balance", "trash_share", "learning_rate")
    return order.index(name) if name in order else len(order)


def _panel(axes: Any, training: TrainingSummary, title: str, names: Sequence[str]) -> None:  # noqa: ANN401
    layers = [name for name in names if LAYERED in name]
    for name in layers:
        curve = training.curves[name]
        axes.plot(curve.steps, curve.values, color=PLAIN, alpha=0.55, linewidth=0.8)
    for name in names:
        if name not in layers:
            curve = training.curves[name]
            marker = "o" if len(curve.steps) < 3 else ""
            axes.plot(curve.steps, curve.values, color=OWN, marker=marker, markersize=3)
    axes.set_title(f"{title}, mean and layers" if layers else title, loc="left", parse_math=False)
    axes.grid(visible=True, axis="y")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 5), useOffset=False)


def losses_picture(trainings: Sequence[TrainingSummary], prefix: str) -> str | None:
    """Draw the loss of several trainings of one kind in one panel, one line per arm."""
    own = [training for training in trainings if "loss" in training.curves]
    if not own:
        return None
    with drawing():
        figure = new_figure(2.6)
        axes = figure.subplots()
        named = []
        for number, training in enumerate(own):
            label = ", ".join(training.arms) or training.key
            colour = next((ARM_COLOURS[arm] for arm in training.arms if arm in ARM_COLOURS), None)
            colour = colour or SERIES[(number + 3) % len(SERIES)]
            curve = training.curves["loss"]
            marker = "o" if len(curve.steps) < 3 else ""
            axes.plot(curve.steps, curve.values, color=colour, marker=marker, markersize=3)
            named.append((label, colour))
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")
        axes.grid(visible=True, axis="y")
        _legend(figure, named)
        return to_svg(figure, "Training loss of each arm", prefix)


def evaluation_picture(evaluation: EvaluationSummary, prefix: str) -> str:
    """Draw every task's value in every arm with one standard error, and chance."""
    tasks, arms = evaluation.tasks, evaluation.arms
    with drawing():
        figure = new_figure(0.8 + (0.17 * len(arms) + 0.16) * len(tasks))
        axes = figure.subplots()
        for number, row in enumerate(tasks):
            middle = len(tasks) - 1 - number
            for place, arm in enumerate(arms):
                if arm not in row.results:
                    continue
                y = middle + 0.6 * ((len(arms) - 1) / 2 - place) / max(len(arms), 2)
                result = row.results[arm]
                axes.errorbar(
                    result.value, y, xerr=result.stderr, fmt="o", markersize=4.5,
                    color=_arm_colour(arm, place), elinewidth=1.4,
                )  # fmt: skip
            if row.chance is not None:
                axes.plot(
                    [row.chance] * 2, [middle - 0.38, middle + 0.38], color=MUTED,
                    linewidth=1.2, linestyle=(0, (2, 2)),
                )  # fmt: skip
        _name_rows(axes, [row.task for row in tasks])
        axes.set_ylim(-0.6, len(tasks) - 0.4)
        axes.set_xlabel("value; the dashed line is chance")
        axes.grid(visible=True, axis="x")
        _legend(figure, [(arm, _arm_colour(arm, place)) for place, arm in enumerate(arms)])
        return to_svg(figure, "Evaluation of every arm", prefix)


def _arm_colour(arm: str, place: int) -> str:
    return ARM_COLOURS.get(arm, SERIES[3 + place % (len(SERIES) - 3)])


def _name_rows(axes: Any, names: Sequence[str]) -> None:  # noqa: ANN401
    shown = [name if len(name) <= NAME else f"{name[: NAME - 1]}…" for name in names]
    axes.set_yticks(range(len(names) - 1, -1, -1), shown)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _legend(figure: Any, entries: Sequence[tuple[str, str]]) -> None:  # noqa: ANN401
    from matplotlib.patches import Patch

    if entries:
        patches = [Patch(color=colour, label=label) for label, colour in entries]
        columns = max(1, min(len(entries), int(WIDTH)))
        figure.legend(
            handles=patches, loc="outside upper right", ncols=columns, handlelength=0.9,
            handleheight=0.9,
        )  # fmt: skip
