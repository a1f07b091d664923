"""Whether a score can be trusted on a pool, in words.

The rule, from the top, the first that holds:

1. the 95 % interval of the AUROC over all kinds lies below .5: worse than chance;
2. it holds .5: no better than chance;
3. the rank correlation with the length of the answer or of the conversation is at least .8 or at
   most -.8, over clean rows: mostly a measure of length;
4. warm-up was shown some kinds, and over the others the interval does not lie above .5: it knows
   what it was shown alone;
5. the AUROC is at least .8, no kind is missed, and the best rows are cleaner than all rows by more
   than 1.96 standard errors: it can be trusted;
6. else: in part, and what of 5 does not hold.

In 5 the AUROC is that of the kinds which warm-up was not shown, where there are such: telling the
damage that one was trained on says little of the damage that a pool has. A kind counts where at
least 20 of its rows were planted: it is seen (AUROC at least .7), half seen (below, and its
interval above .5), missed (its interval holds .5) or preferred (its interval lies below .5). The
intervals are not corrected for the number of kinds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from selectmoe_core.audit.findings import ScoreFinding
from selectmoe_core.audit.measures import Z95, Auroc

TRUSTED = 0.8
SEEN = 0.7
LENGTH = 0.8
ENOUGH = 20

Level = Literal["yes", "partly", "no"]
Sight = Literal["seen", "half seen", "missed", "preferred", "too few"]


@dataclass(frozen=True)
class Verdict:
    """Whether a score can be trusted on this pool.

    Attributes:
        level: ``yes``, ``partly`` or ``no``.
        sentences: why, the first one the short answer.
    """

    level: Level
    sentences: tuple[str, ...]


def judge(finding: ScoreFinding) -> Verdict:
    """Apply the rule of this module."""
    level, first = _level(finding)
    return Verdict(level, (first, *_sentences(finding)))


def sight(area: Auroc) -> Sight:
    """Return how well a kind of damage is seen."""
    if area.damaged < ENOUGH or area.clean < ENOUGH:
        return "too few"
    if area.high < 0.5:
        return "preferred"
    if area.low <= 0.5:
        return "missed"
    return "seen" if area.value >= SEEN else "half seen"


def _level(finding: ScoreFinding) -> tuple[Level, str]:
    if finding.overall.high < 0.5:
        return "no", "Worse than chance: it ranks damaged rows above clean ones."
    # A NaN error (a single row) leaves nothing to go by either.
    if not finding.overall.low > 0.5:
        return "no", "No better than chance on this pool."
    if max(abs(finding.answer), abs(finding.conversation)) >= LENGTH:
        return "no", "Mostly a measure of length."
    if finding.seen and finding.unseen and not finding.unseen.low > 0.5:
        return "no", "It knows the damage that warm-up was shown, and no other."
    if short := list(_falls_short(finding)):
        return "partly", f"To be trusted in part: {'; '.join(short)}."
    return "yes", "It can be trusted to tell these kinds of damage on this pool."


def _falls_short(finding: ScoreFinding) -> Iterator[str]:
    """Yield what is missing for full trust."""
    deciding = finding.unseen or finding.overall
    if not deciding.value >= TRUSTED:
        of = " on kinds that warm-up was never shown" if finding.seen and finding.unseen else ""
        yield f"its AUROC{of} is {deciding.value:.3f}, below {TRUSTED:g}"
    blind = [words(k.kind) for k in finding.kinds if sight(k.auroc) in ("missed", "preferred")]
    if blind:
        yield f"it does not see {listed(blind)}"
    best = finding.precision
    if not best.value - Z95 * best.stderr > best.base:
        yield "its best rows are not surely cleaner than all rows"


def _sentences(finding: ScoreFinding) -> Iterator[str]:
    if seen := _sights(finding):
        yield seen
    if finding.seen and finding.unseen:
        yield (
            f"On kinds that warm-up was never shown the AUROC is {_area(finding.unseen)}, on those "
            f"it was shown {_area(finding.seen)}."
        )
    elif finding.seen:
        yield (
            "Warm-up was shown every kind that was planted: leave some out of it, or plant others, "
            "to learn what it makes of the damage it does not know."
        )
    yield _best(finding)
    if max(abs(finding.answer), abs(finding.conversation)) >= LENGTH / 2:
        yield (
            f"It goes with length: rank correlation {finding.answer:+.2f} with the answer's, "
            f"{finding.conversation:+.2f} with the conversation's."
        )
    if finding.skipped_clean or finding.skipped_damaged:
        yield (
            f"It gives no score to {finding.skipped_clean} clean and {finding.skipped_damaged} "
            "damaged rows; they stand last, since they cannot be selected."
        )


def _sights(finding: ScoreFinding) -> str:
    """Return one sentence on which kinds are seen, missed or even preferred."""
    found: dict[Sight, list[str]] = {}
    for one in finding.kinds:
        found.setdefault(sight(one.auroc), []).append(words(one.kind))
    said: list[str] = []
    for kind, verb in (
        ("seen", "sees"),
        ("half seen", "half sees"),
        ("missed", "misses"),
        ("preferred", "prefers"),
        ("too few", "had too few rows to tell of"),
    ):
        if kinds := found.get(kind):  # type: ignore[call-overload]
            said.append(f"{verb} {listed(kinds)}")
    return f"It {'; '.join(said)}." if said else ""


def _best(finding: ScoreFinding) -> str:
    best = finding.precision
    if not best.kept:
        return "It leaves nothing to select."
    return (
        f"Of its best {100 * finding.fraction:g} % ({best.kept} rows) {100 * best.value:.0f} % "
        f"± {100 * best.stderr:.0f} are clean, of all rows {100 * best.base:.0f} %."
    )


def words(kind: str) -> str:
    """Return a kind's name as words."""
    return kind.replace("_", " ")


def listed(names: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    head, last = ", ".join(names[:-1]), names[-1]
    return f"{head} and {last}" if head else last


def _area(area: Auroc) -> str:
    return f"{area.value:.2f} ± {area.stderr:.2f}"
