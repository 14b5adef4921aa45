"""Files that appear complete or not at all, and results of earlier runs that are kept."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .owners import temporary_for


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Writes ``content`` to a temporary file, flushes it to the disk and renames it to ``path``; creates its folder.

    Raises:
        OSError: it could not be written; names the file. What was at ``path`` before is untouched and nothing is left
            behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_for(path)
    try:
        with naming(path), open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Names the file in errors of writing that do not, such as those of a full disk, with the free space."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, f"{error.strerror} ({free_space(path)})", str(path)) from error


def free_space(path: str | Path) -> str:
    """How much room there is for a file, in words."""
    path = Path(path).absolute()
    try:
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        return f"{shutil.disk_usage(there).free / 2**20:,.1f} MiB free"
    except OSError:
        return "free space unknown"


def same_file(content: Path, path: Path) -> None:
    """Gives a file that is only ever replaced, never changed in place, the second name ``path``.

    What was at ``path`` is replaced, completely or not at all; the content is written again only where links fail.
    """
    temporary = temporary_for(path)
    try:
        os.link(content, temporary)
    except OSError:  # a file system without links
        replace_file(path, content.read_bytes())
        return
    os.replace(temporary, path)
    temporary.unlink(missing_ok=True)  # renaming one name of a file to another of the same file does nothing
    _sync_folder(path.parent)


def archive(folder: Path, names: Iterable[str]) -> Path | None:
    """Moves what an earlier run left of ``names`` to ``<folder>/earlier-1``, ...; None if there was nothing."""
    there = [folder / name for name in names if os.path.lexists(folder / name)]
    if not there:
        return None
    places = (folder / f"earlier-{number}" for number in range(1, 10**6))
    place = next(place for place in places if not os.path.lexists(place))
    place.mkdir()
    for path in there:
        path.rename(place / path.name)
    return place


def safe_name(name: str) -> str:
    """A name fit for a file or a folder: what may be unsafe there becomes ``-``."""
    return re.sub(r"[^\w.+-]", "-", name)


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a platform that opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
