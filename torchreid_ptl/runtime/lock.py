"""One process at a time in a folder, or at a file."""

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import WordedError
from .owners import HOST, alive, remove_abandoned

try:
    import fcntl
except ImportError:  # a system without them: the number of the process alone decides
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
"""The file in a folder that is in use."""
_held: dict[Path, int] = {}
"""The thread that holds each lock of this process."""


class InUseError(WordedError, OSError):
    """Another process works in the folder, or at the file."""


@contextmanager
def locked(path: Path, *, is_file: bool = False) -> Iterator[None]:
    """Keeps other processes out of a folder, which is created, or away from a file; a thread may do so repeatedly.

    The lock is a file with the number and the machine of the process, and the system's lock of that file, which ends
    with the process however it ends. Temporary files of processes that are gone are removed. Of several processes of
    one distributed run, the first locks for all.

    Args:
        path: the folder, or the file.
        is_file: whether it is a file.

    Raises:
        InUseError: names process and machine, and what to do; nothing was changed.
    """
    file = _lock_of(path, is_file)
    key = file.absolute()
    of_another_rank = int(os.environ.get("WORLD_SIZE", 1)) > 1 and os.environ.get("RANK", "0") != "0"
    if of_another_rank or _held.get(key) == threading.get_ident():
        yield
        return
    if key in _held:
        raise _refusal(path, file, {"pid": os.getpid(), "host": HOST})
    _held[key] = threading.get_ident()
    try:
        handle = _acquire(path, file)
    except BaseException:
        del _held[key]
        raise
    try:
        patterns = [f".{path.name}.*.tmp"] if is_file else [".*.tmp", "*/.*.tmp"]
        remove_abandoned(found for pattern in patterns for found in list(file.parent.glob(pattern)))
        yield
    finally:
        del _held[key]
        try:
            file.unlink(missing_ok=True)
        finally:
            os.close(handle)


def require_unlocked(path: Path, *, is_file: bool = False) -> None:
    """Makes sure that nobody works in a folder that is about to be moved, or at a file that is about to be read.

    Raises:
        InUseError: as :func:`locked`.
    """
    if os.path.lexists(_lock_of(path, is_file)):
        with locked(path, is_file=is_file):
            pass


def _lock_of(path: Path, is_file: bool) -> Path:
    return path.with_name(f".{path.name}{NAME}") if is_file else path / NAME


def _acquire(path: Path, file: Path) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            free, owner = _try_lock(handle), _read(handle)
            if free is None:  # the file system knows no locks
                free = not (owner.get("host") == HOST and owner.get("pid") != os.getpid() and alive(owner["pid"]))
            if not free or owner.get("host", HOST) != HOST:
                raise _refusal(path, file, owner)
            if _is_at(handle, file):
                if owner:
                    print(f"Taking over {path} from process {owner['pid']} on this machine, which is gone")
                _write(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner removed it in between


def _try_lock(handle: int) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _read(handle: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.read(handle, 4096))
        return {"pid": int(owner["pid"]), "host": str(owner["host"]), "since": str(owner["since"])}
    except (ValueError, LookupError, TypeError):  # its owner is just writing it, or was killed then
        return {}


def _write(handle: int) -> None:
    facts = {"pid": os.getpid(), "host": HOST, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, (json.dumps(facts) + "\n").encode())


def _is_at(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _refusal(path: Path, file: Path, owner: dict[str, Any]) -> InUseError:
    pid, host, since = (owner.get(name, "unknown") for name in ("pid", "host", "since"))
    text = f"{path} is in use by process {pid} on {host}, since {since}. Two at once would delete each other's "
    if host not in (HOST, "unknown"):
        return InUseError(f"{text}files. If that process does not run any more, delete {file}; else wait for its end")
    return InUseError(f"{text}files: wait for its end, or choose another place ({{save_dir}}, {{bank}})")
