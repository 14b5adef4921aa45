"""What is printed, in a file too."""

import itertools
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from .files import naming


class _Tee:
    """Writes to the console and to a file."""

    def __init__(self, console: TextIO, file: TextIO) -> None:
        self._console, self._file = console, file

    def write(self, text: str) -> int:
        with naming(self._file.name):
            self._file.write(text)
        return self._console.write(text)

    def flush(self) -> None:
        with naming(self._file.name):
            self._file.flush()
        self._console.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._console, name)


@contextmanager
def log_to(folder: Path, kind: str) -> Iterator[None]:
    """Copies what is printed to ``<kind>.log-<time>``, as the host does; always a new file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = _new_file(folder / f"{kind}.log-{time.strftime('%Y-%m-%d-%H-%M-%S')}")
    try:
        with redirect_stdout(cast(TextIO, _Tee(sys.stdout, file))):
            yield
    except BaseException:
        with suppress(OSError):  # a full disk must not hide the error
            traceback.print_exc(file=file)
        with suppress(OSError):
            file.close()
        raise
    with naming(file.name):
        file.close()


def _new_file(path: Path) -> TextIO:
    """Opens a file that was not there; a link is not followed."""
    for number in itertools.count(1):
        try:
            return open(path if number == 1 else f"{path}-{number}", "x", encoding="utf-8")
        except FileExistsError:
            continue
    raise AssertionError("unreachable")
