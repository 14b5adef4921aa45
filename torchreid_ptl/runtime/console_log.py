"""What is printed, in a file too."""

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


class _Tee:
    """Writes to the console and to a file."""

    def __init__(self, console: TextIO, file: TextIO) -> None:
        self._console, self._file = console, file

    def write(self, text: str) -> int:
        self._file.write(text)
        return self._console.write(text)

    def flush(self) -> None:
        self._file.flush()
        self._console.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._console, name)


@contextmanager
def log_to(folder: Path, kind: str) -> Iterator[None]:
    """Copies what is printed to ``<kind>.log-<time>``, as the host does."""
    folder.mkdir(parents=True, exist_ok=True)
    console = sys.stdout
    with open(folder / f"{kind}.log-{time.strftime('%Y-%m-%d-%H-%M-%S')}", "w") as file:
        sys.stdout = _Tee(console, file)
        try:
            yield
        except BaseException:
            traceback.print_exc(file=file)
            raise
        finally:
            sys.stdout = console
