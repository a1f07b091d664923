"""The fenced blocks and links of the Markdown files that users read."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = tuple(
    sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")], key=lambda p: p.name)
)
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
FILE = re.compile(r"# ([\w./-]+\.(?:py|toml))")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the block's first line names, if it names one."""
        found = FILE.fullmatch(self.text.partition("\n")[0])
        return found[1] if found else None


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of some languages; of all, where none is named."""
    return [
        block
        for page in PAGES
        for block in _of(page)
        if not languages or block.language in languages
    ]


def links(page: Path) -> list[str]:
    """Return where a page's links lead, those in fenced blocks left out."""
    return LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


def named_files(page: str) -> dict[str, str]:
    """Return the files that a page's blocks show, by name."""
    return {block.file: block.text for block in blocks() if block.page.name == page and block.file}


def _of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1].strip(), found[2])
        for found in FENCE.finditer(text)
    ]
