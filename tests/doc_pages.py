"""The pages of the documentation, and the code blocks on them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "artifactnet" / "weights").glob("*.md")),  # model cards
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the line where the text begins."""

    language: str
    text: str
    line: int


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        indent = match[1]
        body = re.sub(rf"^{indent}", "", match[3], flags=re.MULTILINE)
        found.append(Block(match[2], body, text.count("\n", 0, match.start(3)) + 1))
    return found


def commands(block: Block) -> list[list[str]]:
    """The words of every ``artifactnet`` command of a bash block."""
    if block.language != "bash":
        return []
    lines = [line.partition(" #")[0].replace("'", "") for line in block.text.splitlines()]
    words = [line.split() for line in lines]
    return [line[1:] for line in words if line[:1] == ["artifactnet"]]
