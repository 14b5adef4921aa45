"""Distillation from the command line."""

import re

import pytest
import torch
import torchreid

from torchreid_ptl.cli.main import main
from torchreid_ptl.runtime.checkpoint import load_checkpoint

TINY = "drawn_pedestrians_tiny"


@pytest.fixture
def teacher(tmp_path):
    path = tmp_path / "teacher.pth"
    model = torchreid.models.build_model("osnet_x0_25_ptl", 9, pretrained=False, use_gpu=False)
    torch.save(model.state_dict(), path)
    return path


def distil(tmp_path, root, weights, *more):
    return [
        "--root", str(root), "-s", TINY, "-t", TINY, "model.name", "osnet_x0_25", "model.pretrained", "False",
        "data.height", "64", "data.width", "32", "data.workers", "0", "data.save_dir", str(tmp_path / "log"),
        "train.batch_size", "4", "train.max_epoch", "1", "train.lr_scheduler", "one_cycle",
        "loss.name", "std", "std.teacher", "osnet_x0_25_ptl", "std.teacher_weights", str(weights), *more,
    ]  # fmt: skip


def test_a_teacher_of_other_identities_teaches_a_plain_student(tmp_path, tiny_root, teacher, capsys):
    assert main(distil(tmp_path, tiny_root, teacher)) == 0
    out = capsys.readouterr().out
    assert re.search(r"Teacher osnet_x0_25_ptl, .*teacher\.pth: \d+ entries loaded", out)
    assert "loss_std" in out
    plain = torchreid.models.build_model("osnet_x0_25", 4, pretrained=False, use_gpu=False)
    plain.load_state_dict(load_checkpoint(tmp_path / "log" / "model" / "model.pth.tar-1")["state_dict"])


def test_only_testing_a_student_needs_no_teachers_weights(tmp_path, tiny_root, teacher):
    assert main(distil(tmp_path, tiny_root, teacher)) == 0
    weights = str(tmp_path / "log" / "model" / "model.pth.tar-1")
    teacher.unlink()
    test = ["test.evaluate", "True", "model.load_weights", weights, "data.save_dir", str(tmp_path / "test")]
    assert main(distil(tmp_path, tiny_root, "", *test)) == 0


def test_features_once_own_size_and_normalisation(tmp_path, tiny_root, teacher, capsys):
    options = ["data.transforms", "[]", "std.cache", "True", "std.height", "96", "std.width", "48"]
    assert main(distil(tmp_path, tiny_root, teacher, *options, "std.norm_mean", "[0.5, 0.5, 0.5]")) == 0
    assert "teacher [4/4]" in capsys.readouterr().out


def test_weights_that_do_not_fit(tmp_path, tiny_root, teacher, capsys):
    plain = torchreid.models.build_model("osnet_x0_25", 4, pretrained=False, use_gpu=False)
    torch.save(plain.state_dict(), teacher)
    assert main(distil(tmp_path, tiny_root, teacher)) == 1
    assert "does not fill the teacher osnet_x0_25_ptl" in capsys.readouterr().err
    torch.save(torchreid.models.build_model("resnet18", 4, pretrained=False).state_dict(), teacher)
    assert main(distil(tmp_path, tiny_root, teacher)) == 1
    assert "belongs to another model" in capsys.readouterr().err
    assert main(distil(tmp_path, tiny_root, tmp_path / "none.pth")) == 1
    assert "FileNotFoundError: No checkpoint at" in capsys.readouterr().err


def test_a_teacher_of_another_dimension(tmp_path, tiny_root, teacher, capsys):
    model = torchreid.models.build_model("shufflenet_v2_x0_5_ptl", 4, pretrained=False, use_gpu=False)
    torch.save(model.state_dict(), teacher)
    options = distil(tmp_path, tiny_root, teacher, "std.teacher", "shufflenet_v2_x0_5_ptl")
    assert main(options) == 1
    assert "512 dimensions and the teacher's 1024" in capsys.readouterr().err
    assert main([*options, "std.projection", "linear"]) == 0
    state = load_checkpoint(tmp_path / "log" / "model" / "model.pth.tar-1")
    assert set(state["objective"]) == {"projection.weight", "projection.bias"}
