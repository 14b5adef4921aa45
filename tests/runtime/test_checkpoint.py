"""Checkpoint files."""

import gzip
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from torchreid_ptl.runtime import checkpoint
from torchreid_ptl.runtime.checkpoint import (
    CheckpointError,
    TornCheckpointError,
    UnsafeCheckpointError,
    check_room,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)

STATE = {"state_dict": {"weight": torch.arange(6.0)}, "epoch": 3, "history": {"loss": [(1, 0.5)]}}


def equal(a, b):
    return torch.equal(a["state_dict"]["weight"], b["state_dict"]["weight"]) and a["epoch"] == b["epoch"]


def test_round_trip_creates_the_folder_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "model.pth.tar-3"
    save_checkpoint(STATE, path)
    assert equal(load_checkpoint(path), STATE)
    assert os.listdir(path.parent) == ["model.pth.tar-3"]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pth.tar-1"
    save_checkpoint(STATE, path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"Could not write the checkpoint .*model\.pth\.tar-1.*MiB free.*No space left.*auto"
    ):
        save_checkpoint({**STATE, "epoch": 4}, path)
    monkeypatch.undo()
    assert equal(load_checkpoint(path), STATE)
    assert os.listdir(tmp_path) == ["model.pth.tar-1"]


@pytest.mark.slow
def test_a_file_that_cannot_grow(tmp_path):
    """The system refuses to write on, as on a full disk."""
    code = f"""
import resource, signal, torch
from pathlib import Path
from torchreid_ptl.runtime.checkpoint import save_checkpoint
path = Path({str(tmp_path)!r}) / 'model.pth.tar-1'
save_checkpoint({{'epoch': 1}}, path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint({{'epoch': 2, 'weight': torch.rand(1_000_000)}}, path)
except OSError as error:
    print(error)
"""
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "Could not write the checkpoint" in out
    assert "3.8 MiB" in out
    assert load_checkpoint(tmp_path / "model.pth.tar-1") == {"epoch": 1}
    assert os.listdir(tmp_path) == ["model.pth.tar-1"]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_torn(tmp_path, keep):
    path = tmp_path / "model.pth.tar-1"
    save_checkpoint({"weight": torch.rand(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(TornCheckpointError, match=r"model\.pth\.tar-1 is (empty|incomplete|damaged)"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"hello, I am a text", b"\x80\x04", b"e", bytes(range(256))])
def test_no_checkpoint_at_all(tmp_path, content):
    path = tmp_path / "model.pth.tar-1"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.pth\.tar-1"):
        load_checkpoint(path)


def test_the_refusal_does_not_repeat_unsafe_advice(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UnsafeCheckpointError) as caught:
        load_checkpoint(tmp_path / "module.pth")
    assert "torch.nn.modules.linear.Linear" in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_a_flipped_bit(tmp_path):
    path = tmp_path / "model.pth.tar-1"
    save_checkpoint({"weight": torch.zeros(10_000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TornCheckpointError, match="check sum"):
        load_checkpoint(path)


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_hostile_pickle_is_refused_and_not_run(tmp_path, how):
    path, witness = tmp_path / "evil.pth", tmp_path / "witness"
    content = {"state_dict": {}, "x": Hostile(f"touch {witness}")}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UnsafeCheckpointError, match="not read, because reading it could run foreign code"):
        load_checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(3)])
def test_checkpoints_of_the_hosts_engines_load(tmp_path, number):
    path = tmp_path / "model.pth.tar-60"
    torch.save({"state_dict": OrderedDict(weight=torch.ones(2)), "epoch": 60, "rank1": number}, path)
    assert load_checkpoint(path)["rank1"] == number


def test_numpy_arrays_do_not(tmp_path):
    path = tmp_path / "model.pth.tar-60"
    torch.save({"features": np.ones(3)}, path)
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(path)


def test_missing_and_foreign_content(tmp_path):
    with pytest.raises(FileNotFoundError, match="No checkpoint at"):
        load_checkpoint(tmp_path / "none")
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint(tmp_path / "list")


def test_newest_passes_over_torn_ones(tmp_path, capsys):
    for epoch in (2, 9, 10, 11):
        save_checkpoint({"epoch": epoch}, tmp_path / f"model.pth.tar-{epoch}")
    (tmp_path / "model.pth.tar-11").write_bytes(b"PK\x03\x04")
    (tmp_path / ".model.pth.tar-12.1.tmp").write_bytes(b"")
    path, state = newest_checkpoint(tmp_path)
    assert (path.name, state) == ("model.pth.tar-10", {"epoch": 10})
    assert "Ignoring" in capsys.readouterr().out
    assert newest_checkpoint(tmp_path / "empty") is None


def test_prune_keeps_the_last_and_the_best(tmp_path):
    for name in ("model.pth.tar-8", "model.pth.tar-9", "model.pth.tar-10", checkpoint.BEST):
        save_checkpoint({"random_state": {}}, tmp_path / name)
    (tmp_path / ".model.pth.tar-9.123.tmp").write_bytes(b"half")  # of another process
    prune_checkpoints(tmp_path, keep=2)
    kept = [".model.pth.tar-9.123.tmp", checkpoint.BEST, "model.pth.tar-9", "model.pth.tar-10"]
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_checkpoints_of_torchreids_own_engines_are_not_pruned(tmp_path):
    """As torchreid.utils.save_checkpoint writes them."""
    for epoch in (1, 2, 3):
        state = {"state_dict": {"weight": torch.ones(2)}, "epoch": epoch, "rank1": 0.5, "optimizer": {}}
        torch.save(state, tmp_path / f"model.pth.tar-{epoch}")
    torch.save({"epoch": 4}, tmp_path / "model.pth.tar-4", _use_new_zipfile_serialization=False)
    for epoch in (5, 6, 7):
        save_checkpoint({"random_state": {}, "epoch": epoch}, tmp_path / f"model.pth.tar-{epoch}")
    prune_checkpoints(tmp_path, keep=1)
    assert sorted(os.listdir(tmp_path)) == [f"model.pth.tar-{epoch}" for epoch in (1, 2, 3, 4, 7)]


def test_too_little_room_is_said_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**20})())
    state = {"weight": torch.zeros(2**20)}
    with pytest.raises(OSError, match=r"3 checkpoints of 4.0 MiB, .*need 12.0 MiB and .* has 1.0 MiB free.*keep_last"):
        check_room(tmp_path / "not" / "yet", state, copies=3)
    for name in ("model.pth.tar-1", "model.pth.tar-2", "model.pth.tar-3"):
        save_checkpoint(state, tmp_path / name)
    check_room(tmp_path, state, copies=3, going_on=True)  # they are there already
    with pytest.raises(OSError, match="need 12.0 MiB"):
        check_room(tmp_path, state, copies=3)


def scripted(path):
    torch.jit.script(nn.Linear(2, 2)).save(str(path))


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/model.pth", b"x")


def tarred(path):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "model.pth")


def written(content):
    return lambda path: path.write_bytes(content)


HEADER = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (written(b"<!DOCTYPE html>\n<html><title>Google Drive</title></html>"), "a web page"),
        (written(b"\n  <HTML><body>404</body></HTML>"), "a web page"),
        (written(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"), "a web page"),
        (written(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"), "a pointer of Git LFS"),
        (written(len(HEADER).to_bytes(8, "little") + HEADER + bytes(4)), "a file of safetensors"),
        (written(gzip.compress(b"weights")), "compressed by gzip"),
        (written(b"7z\xbc\xaf\x27\x1c" + bytes(40)), "a 7z archive"),
        (lambda path: np.save(path.open("wb"), np.ones(3)), "an array of numpy"),
        (lambda path: np.savez(path.open("wb"), weight=np.ones(3)), r"a zip archive of weight\.npy"),
        (zipped, r"a zip archive of model\.pth"),
        (tarred, "a tar archive"),
        (scripted, "a TorchScript archive"),
        (written(b"model: {name: resnet50}\n"), r"damaged or no checkpoint of torch: it begins with b'model: \{name'"),
        (written(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"), "damaged or no checkpoint of torch: it begins with"),
        (written(b"\x08\x08\x12\x07pytorch"), "damaged or no checkpoint of torch: it begins with"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, write, kind):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(CheckpointError, match=rf"weights\.pth is {kind}"):
        load_checkpoint(path)


def test_a_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        load_checkpoint(tmp_path)
