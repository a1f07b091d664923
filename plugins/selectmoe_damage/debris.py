"""Damage from careless data collection: wrong encodings, raw web pages."""

from random import Random

from selectmoe_core import Example
from selectmoe_damage.turns import Messages, changed

TYPOGRAPHIC = {
    "'": "\u2019",
    '"': "\u201c",
    "-": "\u2013",
    " ": "\u00a0",
    "a": "\u00e1",
    "e": "\u00e9",
    "i": "\u00ed",
    "o": "\u00f6",
    "u": "\u00fc",
    "n": "\u00f1",
    ".": "\u2026",
}
"""What a plain character might have been before its bytes were misread."""
TAGS = ("div", "span", "p", "td", "li", "a", "b", "font")
SCRAPS = (
    "<br/>",
    "&nbsp;",
    "&nbsp;&nbsp;",
    "&amp;",
    "&#39;",
    "&quot;",
    '<a href="#">',
    "</div>",
    "</p>",
    '<img src="pixel.gif" alt="">',
    "<!-- ad -->",
    "{{ footer }}",
    "Skip to content",
    "Share on social media",
)


def misread(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Read UTF-8 as Windows-1252, after a tenth to a third of characters became typographic."""

    def garbage(text: str) -> str | None:
        share = random.uniform(0.1, 0.33)
        dressed = "".join(
            [
                TYPOGRAPHIC.get(character, character) if random.random() < share else character
                for character in text
            ]
        )
        if dressed.isascii():
            return None
        return dressed.encode("utf-8", "replace").decode("cp1252", "replace")

    return changed(example, "assistant", garbage)


def unrendered(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Put pieces of markup before a tenth to a third of the words, and a tag around the text."""

    def litter(text: str) -> str | None:
        share = random.uniform(0.1, 0.33)
        words: list[str] = []
        for word in text.split():
            if random.random() < share:
                words.append(random.choice(SCRAPS))
            words.append(word)
        tag, number = random.choice(TAGS), random.randint(1, 999)
        return f'<{tag} class="c{number}">{" ".join(words)}</{tag}>' if words else None

    return changed(example, "assistant", litter)
