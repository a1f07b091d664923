"""The verdict: whether a score can be trusted on a pool, in words.

The verdict uses the kinds of damage that warm-up was not shown: finding the damage that a model was
trained on says little about the damage in a real pool. For a score without a warm-up these are all
kinds. The first rule that holds decides:

1. the 95 % interval of the AUROC over all kinds lies below .5: worse than chance;
2. warm-up was shown all kinds, so none is left for the verdict: not judged;
3. fewer than 20 rows of every such kind were planted: not judged;
4. the interval over these kinds does not lie above .5: no better than chance; or, if it lies above
   .5 over the kinds that warm-up was shown: it knows only these;
5. the rank correlation with the length of the answer or of the conversation is at least .8 or at
   most -.8, over clean rows: mostly a measure of length;
6. the AUROC over these kinds is at least .8, none of them is missed, and the best rows are cleaner
   than all rows by more than 1.96 standard errors: it can be trusted;
7. otherwise: partly, with the conditions of 6 that do not hold.

A kind counts if at least 20 of its rows were planted. It is found (AUROC at least .7), partly
found (lower, but its interval lies above .5), missed (its interval contains .5) or preferred (its
interval lies below .5). The intervals are not corrected for the number of kinds.
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
        level: ``yes``, ``partly``, ``no``, or ``unknown`` if the audit cannot decide.
        sentences: the reasons; the first sentence is the short answer.
    """

    level: Level
    sentences: tuple[str, ...]


def judge(finding: ScoreFinding) -> Verdict:
    """Apply the rule of this module."""
    level, first = _level(finding)
    return Verdict(level, (first, *_sentences(finding)))


def sight(area: Auroc) -> Sight:
    """Return how well a kind of damage is found."""
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
        return "unknown", _too_few(finding)
    if distrust := _distrust(finding, deciding):
        return "no", distrust
    if short := list(_falls_short(finding, deciding)):
        return "partly", f"It can be trusted partly: {'; '.join(short)}."
    return "yes", "It can be trusted to find these kinds of damage on this pool."


def _too_few(finding: ScoreFinding) -> str:
    """Say that no kind has enough rows for a verdict, and what to type to get one."""
    kinds = sorted(_deciding_kinds(finding), key=lambda kind: -kind.auroc.damaged)
    which = " that warm-up was not shown" if finding.seen else ""
    fewer = f"plant fewer kinds, as --kinds {','.join(kind.kind for kind in kinds[:2])}"
    return (
        f"Not judged: there are fewer than {ENOUGH} rows of each kind of damage{which}. Take more "
        f"rows with --sample, or {fewer}."
    )


def _distrust(finding: ScoreFinding, deciding: Auroc) -> str:
    """Return why a score cannot be trusted at all, or ``""``."""
    # A NaN error (of a single row) says nothing either.
    if not deciding.low > 0.5:
        if finding.seen and finding.seen.low > 0.5:
            return "It finds only the damage that warm-up was shown."
        return "No better than chance on this pool."
    if max(abs(finding.answer), abs(finding.conversation)) >= LENGTH:
        return "It mostly measures length."
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
    blind = [kind.kind for kind in kinds if sight(kind.auroc) in ("missed", "preferred")]
    if blind:
        yield f"it does not find {listed(blind)}"
    best = finding.unseen_precision or finding.precision
    if not best.value - Z95 * best.stderr > best.base:
        yield "its best rows are not clearly cleaner than all rows"


def _sentences(finding: ScoreFinding) -> Iterator[str]:
    if seen := _sights(finding):
        yield seen
    if finding.seen and finding.unseen:
        yield (
            f"The AUROC is {_area(finding.unseen)} on kinds that warm-up was never shown, and "
            f"{_area(finding.seen)} on those that it was shown."
        )
    elif finding.seen:
        yield (
            "To test it on damage that it does not know, leave some kinds out of "
            "warm-up, or plant other kinds."
        )
    yield _best(finding)
    if max(abs(finding.answer), abs(finding.conversation)) >= LENGTH / 2:
        yield (
            f"It follows length: its rank correlation is {finding.answer:+.2f} with the answer's, "
            f"{finding.conversation:+.2f} with the conversation's."
        )
    if finding.skipped_clean or finding.skipped_damaged:
        yield (
            f"It gives no score to {finding.skipped_clean} clean and {finding.skipped_damaged} "
            "damaged rows; they rank last, because they cannot be selected."
        )


def _sights(finding: ScoreFinding) -> str:
    """Return one sentence about the kinds that are found, missed or even preferred."""
    found: dict[Sight, list[str]] = {}
    for result in finding.kinds:
        found.setdefault(sight(result.auroc), []).append(result.kind)
    clauses: list[str] = []
    for kind, verb in (
        ("seen", "finds"),
        ("half seen", "partly finds"),
        ("missed", "misses"),
        ("preferred", "prefers"),
        ("too few", f"had fewer than {ENOUGH} rows of"),
    ):
        if kinds := found.get(kind):  # type: ignore[call-overload]
            every = kind == "too few" and len(kinds) == len(finding.kinds)
            clauses.append(f"{verb} {'every kind' if every else listed(kinds)}")
    return f"It {'; '.join(clauses)}." if clauses else ""


def _best(finding: ScoreFinding) -> str:
    best = finding.precision
    if not best.kept:
        return "No row has a score, so none can be selected."
    return (
        f"Of its best {100 * finding.fraction:g} % ({best.kept} rows) {100 * best.value:.0f} % "
        f"± {100 * best.stderr:.0f} are clean; of all rows, {100 * best.base:.0f} % are."
    )


def listed(names: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    head, last = ", ".join(names[:-1]), names[-1]
    return f"{head} and {last}" if head else last


def _area(area: Auroc) -> str:
    return f"{area.value:.2f} ± {area.stderr:.2f}"
