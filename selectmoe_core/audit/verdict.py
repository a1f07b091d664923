"""Whether a score can be trusted on a pool, in words.

The verdict rests on the kinds of damage that warm-up was not shown: to tell what one was trained on
says little about the damage that a pool has. For a score without a warm-up these are all kinds. The
first rule that holds decides:

1. the 95 % interval of the AUROC over all kinds lies below .5: worse than chance;
2. no kind is left for the verdict, because warm-up was shown all of them: not judged;
3. fewer than 20 rows of every such kind were planted: not judged;
4. the interval over these kinds does not lie above .5: no better than chance, or, where it lies
   above .5 over the kinds that warm-up was shown: it knows these alone;
5. the rank correlation with the length of the answer or of the conversation is at least .8 or at
   most -.8, over clean rows: mostly a measure of length;
6. the AUROC over these kinds is at least .8, none of them is missed, and the best rows are cleaner
   than all rows by more than 1.96 standard errors: it can be trusted;
7. else: in part, and what of 6 does not hold.

A kind counts where at least 20 of its rows were planted: it is seen (AUROC at least .7), half seen
(below, and its interval above .5), missed (its interval holds .5) or preferred (its interval lies
below .5). The intervals are not corrected for the number of kinds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from selectmoe_core.audit.findings import KindFinding, ScoreFinding
from selectmoe_core.audit.measures import Z95, Auroc

TRUSTED = 0.8
SEEN = 0.7
LENGTH = 0.8
ENOUGH = 20

Level = Literal["yes", "partly", "no", "unknown"]
Sight = Literal["seen", "half seen", "missed", "preferred", "too few"]


@dataclass(frozen=True)
class Verdict:
    """Whether a score can be trusted on this pool.

    Attributes:
        level: ``yes``, ``partly``, ``no``, or ``unknown`` where the audit cannot tell.
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
    deciding = _deciding_auroc(finding)
    if deciding is None:
        return "unknown", "Not judged: warm-up was shown every kind of damage that was planted."
    if all(sight(kind.auroc) == "too few" for kind in _deciding_kinds(finding)):
        return "unknown", f"Not judged: fewer than {ENOUGH} rows of each kind; raise --sample."
    if distrust := _distrust(finding, deciding):
        return "no", distrust
    if short := list(_falls_short(finding, deciding)):
        return "partly", f"To be trusted in part: {'; '.join(short)}."
    return "yes", "It can be trusted to tell these kinds of damage on this pool."


def _distrust(finding: ScoreFinding, deciding: Auroc) -> str:
    """Return why a score cannot be trusted at all, or ``""``."""
    # A NaN error (a single row) leaves nothing to go by either.
    if not deciding.low > 0.5:
        if finding.seen and finding.seen.low > 0.5:
            return "It knows the damage that warm-up was shown, and no other."
        return "No better than chance on this pool."
    if max(abs(finding.answer), abs(finding.conversation)) >= LENGTH:
        return "Mostly a measure of length."
    return ""


def _deciding_auroc(finding: ScoreFinding) -> Auroc | None:
    """Return the AUROC over the kinds that warm-up was not shown, if there are any."""
    return finding.unseen if finding.seen else finding.overall


def _deciding_kinds(finding: ScoreFinding) -> tuple[KindFinding, ...]:
    return tuple(kind for kind in finding.kinds if not kind.seen)


def _falls_short(finding: ScoreFinding, deciding: Auroc) -> Iterator[str]:
    """Yield what is missing for full trust."""
    if not deciding.value >= TRUSTED:
        which = " on kinds that warm-up was never shown" if finding.seen else ""
        yield f"its AUROC{which} is {deciding.value:.3f}, below {TRUSTED:g}"
    kinds = _deciding_kinds(finding)
    blind = [words(kind.kind) for kind in kinds if sight(kind.auroc) in ("missed", "preferred")]
    if blind:
        yield f"it does not see {listed(blind)}"
    best = finding.unseen_precision or finding.precision
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
            "To learn what it makes of damage that it does not know, leave some kinds out of "
            "warm-up, or plant other kinds."
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
    for result in finding.kinds:
        found.setdefault(sight(result.auroc), []).append(words(result.kind))
    said: list[str] = []
    for kind, verb in (
        ("seen", "sees"),
        ("half seen", "half sees"),
        ("missed", "misses"),
        ("preferred", "prefers"),
        ("too few", f"had fewer than {ENOUGH} rows of"),
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
