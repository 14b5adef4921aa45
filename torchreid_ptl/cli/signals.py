"""Ctrl-C and SIGTERM: one line that says how to go on, and the exit status of the signal."""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_PRESS = 1.0
"""Seconds in which the same signal may arrive twice, for the process and for its group."""


@contextmanager
def raised() -> Iterator[list[int]]:
    """Makes SIGINT and SIGTERM a :class:`KeyboardInterrupt`, so that locks and temporary files are removed.

    A second signal ends the process at once. Processes that load images leave SIGINT to this one, which ends them;
    what they die of afterwards is no error of the loader (torch raises one from its handler of SIGCHLD).

    Yields:
        The signals that came.
    """
    received: list[int] = []
    process, first = os.getpid(), 0.0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal first
        inside = os.getpid() == process
        if not inside and number == signal.SIGINT or received and time.monotonic() - first < _ONE_PRESS:
            return
        if not inside or received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        first = time.monotonic()
        received.append(number)
        # SIG_DFL would print an error when one is pending
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        if before[number] is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command_line(command: str, arguments: Sequence[str] | None, *, resume: bool) -> str:
    """The line that repeats a command, or goes on with it.

    Args:
        command: its name.
        arguments: as given to its entry point; None for those of the process.
        resume: whether it knows ``--resume``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if resume and "--resume" not in words:
        words.append("--resume")
    start = ["torchreid_ptl", command]
    if arguments is None:
        start = ["python", sys.argv[0]]
    elif Path(sys.argv[0]).name == "__main__.py":
        start = ["python", "-m", *start]
    return shlex.join([*start, *words])


def explain(received: Sequence[int], again: str) -> int:
    """Prints why a command stopped and how to go on; returns its exit status."""
    number = signal.Signals(received[0] if received else signal.SIGINT)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    print(f"Stopped by {name}. What is complete is kept." + (f" To go on: {again}" if again else ""), file=sys.stderr)
    return 128 + number
