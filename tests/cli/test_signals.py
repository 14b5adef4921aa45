"""Signals that stop a command."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from torchreid_ptl.cli import compatibility, evaluate, signals, sweep
from torchreid_ptl.cli import main as commands
from torchreid_ptl.cli.train import main
from torchreid_ptl.engines import ImagePTLEngine

ROOT = Path(__file__).parents[2]
TINY = "drawn_pedestrians_tiny"
KINDS = pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")], ids=str
)


def small(folder, root, *more):
    return [
        "--root", str(root), "-s", TINY, "-t", TINY, "data.height", "64", "data.width", "32", "train.batch_size", "4",
        "model.name", "osnet_x0_25", "model.pretrained", "False", "test.visrank", "False", "data.save_dir", str(folder),
        *more,
    ]  # fmt: skip


@KINDS
def test_a_run_that_is_stopped_says_how_to_go_on(tmp_path, tiny_root, monkeypatch, capsys, number, status, name):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def stopped(*_, **__):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # to the process and to its group
        time.sleep(5)

    monkeypatch.setattr(ImagePTLEngine, "train", stopped)
    arguments = small(tmp_path / "log of mine", tiny_root, "data.workers", "0")
    assert main(arguments) == status
    err = capsys.readouterr().err
    assert err.startswith(f"Stopped by {name}. What is complete is kept. To go on: ")
    assert err.count("\n") == 1
    said = shlex.split(err.partition("To go on: ")[2])
    assert said[said.index("train") + 1 :] == [*arguments, "--resume"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert not (tmp_path / "log of mine" / ".lock").exists()


def test_what_fails_because_of_the_signal_is_the_signal(capsys):
    from torchreid_ptl.cli.arguments import report_user_errors

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt as error:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.") from error

    assert report_user_errors(work, "again") == 143
    assert capsys.readouterr().err == "Stopped by SIGTERM. What is complete is kept. To go on: again\n"


def test_after_the_signal_the_end_of_a_process_that_loads_images_is_no_error():
    def dead(*_):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    before = signal.signal(signal.SIGCHLD, dead)
    try:
        with signals.raised() as received:
            with pytest.raises(RuntimeError, match="is killed"):
                os.kill(os.getpid(), signal.SIGCHLD)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGCHLD)
            assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGCHLD) is dead
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone():
    found = []

    def work():
        with signals.raised() as received:
            found.append((received, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], signal.getsignal(signal.SIGTERM))]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.raised() as received:
            os.kill(os.getpid(), signal.SIGINT)
        assert received == []
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("entry", "script", "expected"),
    [
        (None, "tools/main.py", "python tools/main.py -s 'a b' --resume"),
        (["-s", "a b"], "/usr/bin/torchreid_ptl", "torchreid_ptl train -s 'a b' --resume"),
        (["--resume"], "/x/torchreid_ptl/__main__.py", "python -m torchreid_ptl train --resume"),
    ],
)
def test_the_line_that_goes_on(monkeypatch, entry, script, expected):
    monkeypatch.setattr(sys, "argv", [script, "-s", "a b"])
    assert signals.command_line("train", entry, resume=True) == expected


@pytest.mark.parametrize(
    ("command", "module", "work", "resumes"),
    [
        ("evaluate", evaluate, "_evaluate", False),
        ("compatibility", compatibility, "_compare", False),
        ("sweep", sweep, "sweep_of", True),
    ],
)
def test_every_command_tells_its_own_line(monkeypatch, capsys, command, module, work, resumes):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, work, stop)
    assert commands.main([command, "--root", "data"]) == 130
    assert re.search(f"{command} --root data{' --resume' * resumes}\n$", capsys.readouterr().err)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("whole_group", [True, False])
def test_no_traceback_from_processes_that_load_images(tmp_path, tiny_root, number, status, name, whole_group):
    arguments = small(tmp_path / "log", tiny_root, "data.workers", "2", "train.max_epoch", "1000")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "torchreid_ptl", "train", *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err.splitlines() == [line for line in err.splitlines() if line.startswith(f"Stopped by {name}")]
    assert err.rstrip().endswith("--resume")
    assert not (tmp_path / "log" / ".lock").exists()
