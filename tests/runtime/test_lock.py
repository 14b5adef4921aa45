"""One process at a time in a folder; what killed ones left is removed."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from torchreid_ptl.data.drawn import TinyDrawnPedestrians
from torchreid_ptl.runtime import lock, owners
from torchreid_ptl.runtime.lock import InUseError, locked, require_unlocked
from torchreid_ptl.runtime.owners import HOST, alive, remove_abandoned, temporary_for

HOLD = """
import sys
from pathlib import Path
from torchreid_ptl.runtime.lock import locked
with locked(Path(sys.argv[1]), is_file=sys.argv[2] == "file"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def gone():
    """The number of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_another_process_is_refused_by_name_and_its_death_frees(tmp_path, kind, capsys):
    place = tmp_path / "v1.0"
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(place), kind]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    options = {"is_file": kind == "file"}
    for work in (locked(place, **options).__enter__, lambda: require_unlocked(place, **options)):
        with pytest.raises(InUseError, match=rf"v1\.0 is in use by process {other.pid} on {HOST}, since 2.*save_dir"):
            work()
    other.kill()
    other.wait()
    with locked(place, **options):
        assert f"Taking over {place} from process {other.pid} on this machine" in capsys.readouterr().out
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_lock_names_its_owner_and_goes_on_an_error(tmp_path):
    def work():
        with locked(tmp_path), locked(tmp_path):
            owner = json.loads((tmp_path / ".lock").read_text())
            assert (owner["pid"], owner["host"]) == (os.getpid(), HOST)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass


def test_another_thread_is_refused(tmp_path):
    found = []

    def work():
        try:
            with locked(tmp_path):
                found.append("in")
        except InUseError as error:
            found.append(str(error))

    with locked(tmp_path):
        other = threading.Thread(target=work)
        other.start()
        other.join()
    assert "is in use by process" in found[0]


def test_the_lock_of_another_machine_is_refused(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps({"pid": 7, "host": "elsewhere", "since": "2026-01-01 00:00:00"}))
    with pytest.raises(InUseError, match=r"process 7 on elsewhere, .*does not run any more, delete .*\.lock"):
        locked(tmp_path).__enter__()
    assert (tmp_path / ".lock").is_file()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "host": 1, "since": ""}'])
def test_a_lock_that_was_not_written_to_its_end_is_nobodys(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [True, False])
def test_without_locks_of_the_file_system_the_process_alone_decides(tmp_path, monkeypatch, there, gone):
    monkeypatch.setattr(lock, "fcntl", None)
    pid = os.getppid() if there else gone
    (tmp_path / ".lock").write_text(json.dumps({"pid": pid, "host": HOST, "since": ""}))
    if there:
        with pytest.raises(InUseError, match=f"process {pid} "):
            locked(tmp_path).__enter__()
        return
    with locked(tmp_path):
        pass


def test_the_first_of_a_distributed_run_locks_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RANK", "0")
    with locked(tmp_path):
        assert (tmp_path / ".lock").is_file()


def test_temporary_files_of_processes_that_are_gone_are_removed(tmp_path, monkeypatch, gone):
    mine = temporary_for(tmp_path / "model.pth.tar-1")
    assert mine != temporary_for(tmp_path / "model.pth.tar-1")
    names = {
        mine.name: True,
        mine.name.replace(str(os.getpid()), str(os.getppid())): True,
        mine.name.replace(str(os.getpid()), str(gone)): False,
        f".results.json.abcdef-{gone}-0.tmp": True,  # another machine's
        f".results.json.{gone}.tmp": True,  # of an earlier version: nobody knows of which machine
        ".mine.tmp": True,
        "notes.tmp": True,
    }
    (tmp_path / "model").mkdir()
    for folder in (tmp_path, tmp_path / "model"):
        for name in names:
            (folder / name).write_bytes(b"half")
    with locked(tmp_path):
        pass
    for folder in (tmp_path, tmp_path / "model"):
        assert {name: (folder / name).exists() for name in names} == names
    old = time.time() - 2 * 86400
    for path in (tmp_path / name for name in names):
        path.touch()
        os.utime(path, (old, old))
    remove_abandoned(tmp_path.glob(".*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "model", "notes.tmp"]


def test_a_process_with_the_number_of_a_killed_one_removes_its_files(tmp_path, monkeypatch):
    """As in a container that is started again."""
    temporary_for(tmp_path / "x").write_bytes(b"half")
    monkeypatch.setattr(owners, "_BEGAN", time.time() + 10)
    remove_abandoned(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_pedestrians_half_drawn_by_a_killed_process_are_removed(tmp_path, gone):
    name = temporary_for(tmp_path / "drawn_pedestrians_tiny").name.replace(str(os.getpid()), str(gone))
    (tmp_path / name / "query").mkdir(parents=True)
    TinyDrawnPedestrians(str(tmp_path), verbose=False)
    assert [path.name for path in tmp_path.iterdir()] == ["drawn_pedestrians_tiny"]


def test_which_processes_are_there(gone):
    assert alive(os.getpid())
    assert alive(1)
    assert not alive(gone)
    assert not alive(2**70)
