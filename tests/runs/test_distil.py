"""Distillation from the command line."""

import re

import pytest
import torch
import torchreid
from helpers import configure, main, parse, run

from torchreid_ptl.engines import Preprocessing
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
    norm = ["std.norm_mean", "[0.5, 0.4, 0.3]", "std.norm_std", "[0.1, 0.2, 0.3]"]
    engine = run(configure(parse(distil(tmp_path, tiny_root, teacher, *options, *norm))))
    assert "teacher [4/4]" in capsys.readouterr().out
    frozen = engine.objective.teacher
    assert frozen.expects == Preprocessing(96, 48, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    assert frozen.receives == Preprocessing(64, 32)
    batch = next(iter(engine.train_loader))
    torch.testing.assert_close(engine.objective.table(batch["impath"]), frozen(batch["img"]), rtol=1e-4, atol=1e-5)


def test_lambda_0_is_the_plain_training_of_the_same_command(tmp_path, tiny_root, teacher):
    asked = {
        "plain": ["loss.name", "softmax"],
        "distilled": ["std.lambda", "0"],
    }
    weights = []
    for name, options in asked.items():
        folder = tmp_path / name
        assert main(distil(tmp_path, tiny_root, teacher, *options, "data.save_dir", str(folder))) == 0
        weights.append(load_checkpoint(folder / "model" / "model.pth.tar-1")["state_dict"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0].keys() | weights[1].keys())


def test_the_objective_beside_the_teacher(tmp_path, tiny_root, teacher):
    sampling = ["sampler.train_sampler", "RandomIdentitySampler", "sampler.num_instances", "2"]
    options = [*sampling, "std.objective", "triplet", "loss.triplet.weight_x", "1", "std.lambda", "0.5"]
    engine = run(configure(parse(distil(tmp_path, tiny_root, teacher, *options))))
    assert {"loss_t", "loss_x", "loss_std"} <= engine.history.keys()
    assert engine.objective.lambda_ == 0.5


@pytest.mark.slow
def test_a_teacher_is_what_its_checkpoint_says(tmp_path, tiny_root, teacher):
    """Without cells, and with images of another size and normalisation than the student's."""
    asked = ["model.name", "osnet_x0_25_ptl", "ptl.cells", "False", "loss.name", "softmax", "train.max_epoch", "1"]
    images = ["data.height", "96", "data.width", "48", "data.norm_mean", "[0.5, 0.5, 0.5]"]
    assert main(distil(tmp_path, tiny_root, "", *asked, *images, "data.save_dir", str(tmp_path / "teacher"))) == 0
    weights = tmp_path / "teacher" / "model" / "model.pth.tar-1"
    engine = run(configure(parse(distil(tmp_path, tiny_root, weights))))
    frozen = engine.objective.teacher
    assert frozen.expects == Preprocessing(96, 48, (0.5, 0.5, 0.5), Preprocessing().std)
    assert len(frozen.network.cells) == 0


def test_weights_that_do_not_fit(tmp_path, tiny_root, teacher, capsys):
    plain = torchreid.models.build_model("osnet_x0_25", 4, pretrained=False, use_gpu=False)
    torch.save(plain.state_dict(), teacher)
    assert main(distil(tmp_path, tiny_root, teacher)) == 1
    assert "does not fill the teacher osnet_x0_25_ptl" in capsys.readouterr().err
    torch.save(torchreid.models.build_model("resnet18", 4, pretrained=False).state_dict(), teacher)
    assert main(distil(tmp_path, tiny_root, teacher)) == 1
    assert "belongs to another model" in capsys.readouterr().err
    assert main(distil(tmp_path, tiny_root, tmp_path / "none.pth")) == 1
    assert "FileNotFoundError: std.teacher_weights names " in capsys.readouterr().err


def test_a_teacher_of_another_dimension(tmp_path, tiny_root, teacher, capsys):
    model = torchreid.models.build_model("shufflenet_v2_x0_5_ptl", 4, pretrained=False, use_gpu=False)
    torch.save(model.state_dict(), teacher)
    options = distil(tmp_path, tiny_root, teacher, "std.teacher", "shufflenet_v2_x0_5_ptl")
    assert main(options) == 1
    assert "512 dimensions and the teacher's 1024" in capsys.readouterr().err
    assert main([*options, "std.projection", "linear"]) == 0
    state = load_checkpoint(tmp_path / "log" / "model" / "model.pth.tar-1")
    assert set(state["objective"]) == {"projection.weight", "projection.bias"}
