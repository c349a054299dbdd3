"""What a terminal shows of many images: a bar while they are predicted, or a table of a few."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from artifactnet.names import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

FEW = 20  # images that a table lists


def on_terminal() -> bool:
    """Whether a person watches standard output: both streams lead to a terminal."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def bar_alone() -> bool:
    """Whether a person watches standard error, while standard output leads elsewhere."""
    return sys.stderr.isatty() and not sys.stdout.isatty()


class Watched:
    """A bar on standard error until the ``with`` block ends; then the table, if one is wanted.

    Args:
        table: list the images, if there are at most `FEW`.
        what: is counted, if not images.
    """

    def __init__(self, table: bool, what: str = "") -> None:
        self._table, self._what = table, what
        self._rows: list[tuple[str, str, str]] = []
        self._images = 0

    def __enter__(self) -> Watched:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        # standard output may lead to a file, and is never written to while the bar is there
        self._bar: Progress = Progress(
            TextColumn("predicting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self._what),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
        )
        self._bar.start()
        self._task: TaskID = self._bar.add_task("", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None and self._table and 0 < self._images <= FEW:
            self._print_table()

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def advance(self) -> None:
        """One more is done."""
        self._bar.advance(self._task)

    def expect(self, images: int) -> None:
        """How many images come; until it is known the bar has no end."""
        self._bar.update(self._task, total=images)

    def add(self, path: str | None, verdict: str, probability: str) -> None:
        """An image was predicted."""
        self._images += 1
        self.advance()
        if self._images <= FEW:
            self._rows.append((visible(str(path)), verdict, probability))

    def _print_table(self) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table()
        table.add_column("image", overflow="fold")
        table.add_column("verdict")
        table.add_column("probability of fake")
        for row in self._rows:
            table.add_row(*map(Text, row))  # as text: a name is no markup
        self._console.print(table)
