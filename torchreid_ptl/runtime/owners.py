"""Whose a temporary file is: each name tells the process that writes it, so that what a killed one left is removed."""

import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable
from pathlib import Path

HOST = socket.gethostname()
"""The name of this machine."""
_TAG = hashlib.blake2s(HOST.encode(), digest_size=3).hexdigest()
_OWNED = re.compile(r"\..+\.(?:(?:([0-9a-f]{6})-)?(\d+)(?:-\d+)?\.tmp|[0-9a-f]{32})")
"""Machine, process and number; earlier versions named the process alone, or nothing that tells it."""
_DAY = 86400.0
_BEGAN = time.time()
_NUMBERS = itertools.count()


def temporary_for(path: Path) -> Path:
    """A name next to ``path`` that no other process, and no other call, uses."""
    return path.with_name(f".{path.name}.{_TAG}-{os.getpid()}-{next(_NUMBERS)}.tmp")


def alive(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it exists and is somebody else's
        pass
    return True


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Removes temporary files and folders whose process on this machine is gone, or that are older than a day."""
    for path in paths:
        if _abandoned(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _abandoned(path: Path) -> bool:
    owner = _OWNED.fullmatch(path.name)
    if owner is None or path.is_symlink():
        return False
    try:
        changed = path.stat().st_mtime
    except OSError:  # removed by its owner
        return False
    if time.time() - changed > _DAY:
        return True
    if owner[1] != _TAG:
        return False
    pid = int(owner[2])
    return not alive(pid) or pid == os.getpid() and changed < _BEGAN
