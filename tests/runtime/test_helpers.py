"""Seeds, progress, memory."""

import errno
import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from torchreid_ptl.runtime import console_log
from torchreid_ptl.runtime.checkpoint import load_checkpoint, save_checkpoint
from torchreid_ptl.runtime.files import archive, naming, replace_file, same_file
from torchreid_ptl.runtime.memory import freed_memory_kept
from torchreid_ptl.runtime.progress import Progress
from torchreid_ptl.runtime.seeding import random_state, random_state_kept, seed_everything, set_random_state


@pytest.mark.parametrize("links", [True, False])
def test_a_file_under_two_names(tmp_path, monkeypatch, links):
    def no_links(*_):
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr("os.link", no_links)
    first, second = tmp_path / "best", tmp_path / "last"
    second.write_text("old")
    replace_file(first, b"new")
    same_file(first, second)
    assert second.read_text() == "new"
    assert first.samefile(second) == links
    same_file(first, second)
    replace_file(second, b"newer")
    assert (first.read_text(), second.read_text()) == ("new", "newer")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last"]


@pytest.mark.parametrize("left", ["dangling link", "file", "folder"])
def test_what_is_called_earlier_1_does_not_break_archiving(tmp_path, left):
    place = tmp_path / "earlier-1"
    {"dangling link": lambda: place.symlink_to("gone"), "file": place.touch, "folder": place.mkdir}[left]()
    (tmp_path / "results.json").symlink_to("gone too")
    (tmp_path / "model").mkdir()
    assert archive(tmp_path, ["results.json", "model", "nothing"]) == tmp_path / "earlier-2"
    assert sorted(os.listdir(tmp_path / "earlier-2")) == ["model", "results.json"]
    assert archive(tmp_path, ["results.json"]) is None


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device \(.* MiB free\): '.*/a/results.json'") as caught:
        replace_file(tmp_path / "a" / "results.json", b"{}")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a" / "results.json"))
    assert list((tmp_path / "a").iterdir()) == []
    with pytest.raises(OSError, match="is gone") as caught, naming("b"):
        raise OSError("is gone")
    assert caught.value.filename is None


class Full(io.StringIO):
    """A file on a full disk."""

    name = "log/train.log-1"

    def write(self, text):
        full()

    def close(self):
        full()


@pytest.mark.parametrize("broken", [False, True])
def test_a_log_on_a_full_disk_is_named_and_hides_no_other_error(tmp_path, monkeypatch, broken):
    monkeypatch.setattr(console_log, "_new_file", lambda _: Full())
    message = "the first" if broken else r"No space left .*: 'log/train.log-1'"

    def work():
        with console_log.log_to(tmp_path, "train"):
            if broken:
                raise KeyError("the first")
            print("hello")

    with pytest.raises((OSError, KeyError), match=message):
        work()


def test_two_logs_of_one_second_are_two_and_a_link_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "train.log-now").symlink_to(tmp_path / "theirs")
    for text in ("one", "two"):
        with console_log.log_to(tmp_path, "train"):
            print(text)
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert [(tmp_path / f"train.log-now-{number}").read_text() for number in (2, 3)] == ["one\n", "two\n"]


def draw():
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item(), random.gauss(0, 1)


def test_random_states_survive_a_checkpoint(tmp_path):
    draw()
    save_checkpoint({"random_state": random_state()}, tmp_path / "x")
    expected = [draw() for _ in range(3)]
    set_random_state(load_checkpoint(tmp_path / "x")["random_state"])
    assert [draw() for _ in range(3)] == expected


def test_seed():
    seed_everything(3)
    first = draw()
    seed_everything(3)
    assert draw() == first


def test_what_is_drawn_inside_is_not_missed_outside():
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with random_state_kept():
        draw()
    assert draw() == expected


def test_plain_lines_without_a_terminal(capsys):
    progress = Progress(range(5), "epoch 1/2", every=2)
    for item in progress:
        progress.note(images=4, loss=1.0 / (item + 1))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2 [2/5]", "epoch 1/2 [4/5]", "epoch 1/2 [5/5]"]
    assert "loss 0.2" in lines[-1]
    assert "images/s" in lines[-1]
    assert "remaining 0:00:00" in lines[-1]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(range(3), "gallery")
    for _ in progress:
        progress.note(images=1, loss=0.5)
    captured = capsys.readouterr()
    assert captured.out.startswith("gallery [3/3]  loss 0.5")
    assert "gallery" in captured.err
    assert "0/3" in captured.err


def resident():
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def test_freed_memory_is_kept_for_a_block_alone():
    with freed_memory_kept() as taken:
        if not taken:
            pytest.skip("not glibc")
        before = resident()
        pieces = [torch.ones(2**20) for _ in range(200)]  # 4 MiB each: a block that lies below others stays
        del pieces
        during = resident()
    assert during > before + 400
    assert resident() < before + 200
