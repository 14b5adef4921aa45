"""What all benchmarks share: the machine in words, a side in a process of its own, its time and its memory."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch


def machine():
    """One line: processor, cores, memory, versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*:\s*(.*)", cpuinfo.read_text())):
        name = found[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return (
        f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB{gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads, numpy {np.__version__}; "
        f"{time.strftime('%Y-%m-%d')}"
    )


def in_own_process(script, **arguments):
    """Runs ``script --side '{...}'`` and returns the JSON object of its last line; None if that side cannot be run."""
    command = [sys.executable, "-W", "ignore", script, "--side", json.dumps(arguments)]
    print(f"  {arguments}", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measured(work, repeats, warm=None):
    """Median seconds, and MiB of memory beyond what was in use before.

    Args:
        work: a function without arguments.
        repeats: how often; the largest memory of all counts.
        warm: a small form of the work that loads what is loaded once.
    """
    (warm or (lambda: None))()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest memory so far is forgotten
    seconds = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(seconds),
        "all": [round(value, 3) for value in seconds],
        "extra_mib": _status("VmHWM") - before,
        "total_mib": _status("VmHWM"),
    }


def _status(field):
    return int(re.search(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
