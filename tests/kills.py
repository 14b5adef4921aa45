"""Kills work before a file operation: from then on, nothing of it reaches the disk, as after SIGKILL."""

import builtins
import io
import os
import re
import threading
from contextlib import contextmanager

VOLATILE = re.compile(r"events\.out\.tfevents.*|(train|test)\.log-.*|earlier-\d+")
"""What each start of a command adds, and what a new run moves aside."""
CHANGES = ("replace", "rename", "unlink", "remove", "link", "mkdir", "rmdir", "symlink")
WITH_TWO_PATHS = ("replace", "rename", "link", "symlink")


class KilledError(BaseException):
    """The process is dead."""


class _Watch:
    """Counts operations of the main thread below a folder, and raises from the chosen one on."""

    def __init__(self, folder, before):
        self.folder, self.before, self.seen, self.dead = os.fspath(folder), before, [], False

    def count(self, path):
        path = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if threading.current_thread() is not threading.main_thread() or not path.startswith(self.folder):
            return
        name = os.path.basename(path)
        self.dead = self.dead or self.before in (len(self.seen), name)
        if self.dead:
            raise KilledError
        self.seen.append(name)

    def changing(self, change):
        plain, which = getattr(os, change), 1 if change in WITH_TWO_PATHS else 0

        def work(*given, **options):
            self.count(given[which])
            return plain(*given, **options)

        return work

    def opening(self, plain):
        def work(file, mode="r", *more, **options):
            if set(mode) & set("wax+"):
                self.count(file)
            return plain(file, mode, *more, **options)

        return work

    def opening_number(self, plain):
        def work(path, flags, *more, **options):
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                self.count(path)
            return plain(path, flags, *more, **options)

        return work


@contextmanager
def killed(folder, before=None):
    """Raises before the operation with a number (from 0), or before the first one on a file of a name, and after it.

    Yields:
        The names of the files of all operations below ``folder`` by the main thread, so far.
    """
    watch = _Watch(folder, before)
    plain = {name: getattr(os, name) for name in (*CHANGES, "open")}
    opening = builtins.open
    try:
        for change in CHANGES:
            setattr(os, change, watch.changing(change))
        os.open = watch.opening_number(os.open)
        builtins.open = io.open = watch.opening(opening)
        yield watch.seen
    finally:
        builtins.open = io.open = opening
        for name, function in plain.items():
            setattr(os, name, function)


def files_of(folder):
    """What is in a folder, without what differs between two starts of the same command."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return sorted(str(path) for path in found if not any(VOLATILE.fullmatch(part) for part in path.parts))
