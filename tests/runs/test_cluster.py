"""Training without identities from the command line."""

import json
from pathlib import Path

import pytest
from helpers import main

from torchreid_ptl.runtime.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
TINY = "drawn_pedestrians_tiny"
CLUSTER = [
    "loss.name", "cluster", "loss.cluster.eps", "0.5", "loss.cluster.min_samples", "2", "loss.cluster.k1", "2",
    "loss.cluster.k2", "1", "train.lr_scheduler", "single_step", "train.lr", "0.001",
]  # fmt: skip
BY_IDENTITY = ["sampler.train_sampler", "RandomIdentitySampler", "sampler.num_instances", "2"]


def arguments(folder, root, *more):
    return [
        "--config-file", str(ROOT / "configs" / "quickstart.yaml"), "--root", str(root), "-s", TINY, "-t", TINY,
        "data.height", "64", "data.width", "32", "data.workers", "0", "train.batch_size", "4", "train.max_epoch", "2",
        "test.visrank", "False", "data.save_dir", str(folder), *CLUSTER, *more,
    ]  # fmt: skip


@pytest.mark.parametrize("sampler", [[], BY_IDENTITY], ids=["random", "by identity"])
def test_a_run(tmp_path, tiny_root, capsys, sampler):
    assert main(arguments(tmp_path / "log", tiny_root, *sampler)) == 0
    out = capsys.readouterr().out
    assert "epoch 1: " in out
    assert "outliers excluded" in out
    assert json.loads((tmp_path / "log" / "results.json").read_text())["targets"][TINY]["mAP"] > 0
    state = load_checkpoint(tmp_path / "log" / "model" / "model.pth.tar-2")
    last = [value for name, value in state["state_dict"].items() if name.startswith("classifier.")][-1]
    assert last.shape == (1,)
    assert state["objective"] == {}


@pytest.mark.slow
def test_a_resumed_run_equals_one_never_stopped(tmp_path, tiny_root):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(arguments(whole, tiny_root)) == 0
    assert main(arguments(parts, tiny_root, "train.max_epoch", "1")) == 0
    assert main(["--resume", *arguments(parts, tiny_root)]) == 0
    first, second = (load_checkpoint(each / "model" / "model.pth.tar-2") for each in (whole, parts))
    assert all((value == second["state_dict"][name]).all() for name, value in first["state_dict"].items())
    assert first["history"]["loss"] == second["history"]["loss"]


@pytest.mark.parametrize("more", [[], BY_IDENTITY, ["loss.cluster.eps", "0.1", "loss.cluster.min_samples", "50"]])
@pytest.mark.parametrize("name", ["osnet_x0_25_ptl", pytest.param("mgn", marks=pytest.mark.slow)])
def test_a_dry_run(tmp_path, tiny_root, capsys, more, name):
    options = ["model.name", name, *more] + (["data.height", "128", "data.width", "64"] if name == "mgn" else [])
    assert main(["--dry-run", *arguments(tmp_path / "log", tiny_root, *options)]) == 0
    out = capsys.readouterr().out
    assert "16 images, 0 outliers excluded" in out
    assert "done: 2 steps of 8 synthetic images and a test" in out
    assert not (tmp_path / "log").exists()


def test_clusters_that_cannot_be_told_apart_are_one_line(tmp_path, tiny_root, capsys):
    assert main(arguments(tmp_path / "log", tiny_root, "loss.cluster.min_samples", "17")) == 1
    error = capsys.readouterr().err
    assert error.startswith("ArgumentError: 16 images give 0 clusters and 16 outliers")
    assert error.count("\n") == 1
