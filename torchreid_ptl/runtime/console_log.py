"""What is printed, in a file too."""

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast


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
    name = f"{kind}.log-{time.strftime('%Y-%m-%d-%H-%M-%S')}"
    with open(folder / name, "w", encoding="utf-8") as file, redirect_stdout(cast(TextIO, _Tee(sys.stdout, file))):
        try:
            yield
        except BaseException:
            traceback.print_exc(file=file)
            raise
