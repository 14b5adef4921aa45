"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


class Progress(Iterable[T]):
    """Iterates over batches and shows how far it is.

    Args:
        batches: what to iterate over.
        label: what the work is, for example ``'epoch 3/50'``.
        every: without a terminal, a line after this many batches; the line at the end always comes.
        total: number of batches, when ``batches`` has no length.
    """

    def __init__(self, batches: Iterable[T], label: str, every: int = 20, total: int | None = None) -> None:
        self._batches = batches
        self._label = label
        self._every = max(1, every)
        self._total = len(batches) if total is None else total  # type: ignore[arg-type]
        self._note: dict[str, str] = {}
        self._images = 0

    def note(self, images: int = 0, **values: float | str) -> None:
        """Adds images to the rate and sets the figures shown next to the bar."""
        self._images += images
        self._note = {key: value if isinstance(value, str) else f"{value:.4g}" for key, value in values.items()}

    def __iter__(self) -> Iterator[T]:
        return self._bar() if sys.stderr.isatty() else self._lines()

    def _bar(self) -> Iterator[T]:
        from tqdm import tqdm

        started = time.monotonic()
        with tqdm(total=self._total, desc=self._label, unit="batch", dynamic_ncols=True, leave=False) as bar:
            for batch in self._batches:
                yield batch
                rate = self._images / max(time.monotonic() - started, 1e-9)
                bar.set_postfix({**self._note, "images/s": f"{rate:.0f}"}, refresh=False)
                bar.update()
        print(self._line(self._total, time.monotonic() - started), flush=True)

    def _lines(self) -> Iterator[T]:
        started = time.monotonic()
        for done, batch in enumerate(self._batches, start=1):
            yield batch
            if done % self._every == 0 or done == self._total:
                print(self._line(done, time.monotonic() - started), flush=True)

    def _line(self, done: int, elapsed: float) -> str:
        remaining = timedelta(seconds=round(elapsed / done * (self._total - done)))
        figures: dict[str, Any] = {**self._note, "images/s": f"{self._images / max(elapsed, 1e-9):.0f}"}
        shown = "  ".join(f"{key} {value}" for key, value in figures.items())
        return f"{self._label} [{done}/{self._total}]  {shown}  remaining {remaining}"
