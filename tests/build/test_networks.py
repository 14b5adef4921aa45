"""Networks with embedding heads, from configurations and from weights, through the commands."""

import json

import pytest
import torch
from torch import nn

from torchreid_ptl import host
from torchreid_ptl.build.networks import agreed_embedding, build_model, build_network, read_weights, trained_network
from torchreid_ptl.cli.compatibility import main as compare
from torchreid_ptl.cli.evaluate import main as evaluate
from torchreid_ptl.cli.train import main
from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import ConfigError, load_config
from torchreid_ptl.models import Embedded, embed
from torchreid_ptl.runtime.checkpoint import load_checkpoint

TINY = "drawn_pedestrians_tiny"
SMALL = ["data.height", "64", "data.width", "32", "data.workers", "0"]


def saved(path, model):
    torch.save({"state_dict": model.state_dict()}, path)
    return str(path)


@pytest.fixture
def head(tmp_path):
    """Writes weights of a network with an embedding head."""

    def write(dim=32, name="osnet_x0_25", classes=4):
        model = embed(name, dim, classes, pretrained=False, use_gpu=False, size=(64, 32))
        return saved(tmp_path / f"{name}_{dim}_{len(list(tmp_path.iterdir()))}.pth", model)

    return write


@pytest.fixture
def plain(tmp_path):
    return saved(tmp_path / "plain.pth", host.models()["osnet_x0_25"](num_classes=4, pretrained=False, use_gpu=False))


def asked(**options):
    pairs = {"model.name": "osnet_x0_25", "model.pretrained": "False", "use_gpu": "False", **options}
    return load_config(None, [*SMALL, *(part for pair in pairs.items() for part in map(str, pair))])


def training(root, folder, *more):
    return [
        "--root", str(root), "-s", TINY, "-t", TINY, "model.name", "osnet_x0_25", "model.pretrained", "False", *SMALL,
        "data.save_dir", str(folder), "train.batch_size", "4", "train.max_epoch", "1", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("loss", ["softmax", "triplet"])
def test_a_head_is_built_where_it_is_asked_for(loss, plain):
    assert not isinstance(build_model(asked(), 4, loss), Embedded)
    for name, weights in (("osnet_x0_25", ""), ("osnet_x0_25", plain), ("osnet_x0_25_ptl", plain)):
        options = {"model.name": name, "model.embedding": 24, "model.load_weights": weights, "ptl.cells": False}
        model = build_model(asked(**options), 4, loss)
        assert (model.dim, model.loss, model.classifier.out_features) == (24, loss, 4)


def test_a_head_is_built_where_the_weights_have_one(head, capsys):
    path = head(24)
    for dim in (0, 24):
        model = build_model(asked(**{"model.load_weights": path, "model.embedding": dim}), 4, "triplet")
        assert torch.equal(model.embedding[0].weight, load_checkpoint(path)["state_dict"]["embedding.0.weight"])
    assert f"Loading {path}, with an embedding head of 24 dimensions\n" in capsys.readouterr().out
    resumed = build_model(asked(**{"model.resume": path}), 4, "triplet")
    assert resumed.dim == 24


def test_heads_that_differ(head):
    path = head(24)
    with pytest.raises(ConfigError, match=rf"model.embedding is 32, and the embedding head of {path} has 24 dimen"):
        build_model(asked(**{"model.load_weights": path, "model.embedding": 32}), 4, "softmax")
    assert [agreed_embedding(*pair, "x") for pair in ((0, 0), (3, 0), (0, 3), (3, 3))] == [0, 3, 3, 3]


def test_a_head_that_learnt_nothing_is_not_tested(plain):
    options = {"model.load_weights": plain, "model.embedding": 32, "test.evaluate": True}
    with pytest.raises(ConfigError, match=r"model.embedding is 32 and .*plain.pth has no embedding head"):
        build_model(asked(**options), 4, "softmax")


def test_a_dimension_below_none():
    with pytest.raises(ConfigError, match="model.embedding is -1; allowed: from 0"):
        validate(asked(**{"model.embedding": -1, "data.sources": [TINY], "data.targets": [TINY]}))


def test_the_same_draws_with_and_without_the_detour(plain):
    """A network without a head is the one that the host's table gives."""
    torch.manual_seed(3)
    expected = host.models()["osnet_x0_25"](num_classes=4, loss="triplet", pretrained=False, use_gpu=False)
    torch.manual_seed(3)
    found = build_network("osnet_x0_25", 4, "triplet", use_gpu=False, size=(64, 32))
    assert type(found) is type(expected)
    assert found.loss == "triplet"
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in expected.state_dict().items())


def test_a_trained_network_is_what_its_weights_say(head, plain, tmp_path, capsys):
    keys = ("old.model", "old.weights")
    network = trained_network("old model", "osnet_x0_25", read_weights(head(24)), keys, use_gpu=False, size=(64, 32))
    assert network.dim == 24
    assert "Old model osnet_x0_25, " in capsys.readouterr().out
    drawn = torch.random.get_rng_state()
    bare = trained_network("old model", "osnet_x0_25", read_weights(plain), keys, use_gpu=False, size=(64, 32))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert isinstance(bare.classifier, nn.Linear)
    with pytest.raises(ConfigError, match=r"does not fill the old model osnet_x0_25_ptl: .*Give old.weights"):
        trained_network("old model", "osnet_x0_25_ptl", read_weights(plain), keys, use_gpu=False, size=(64, 32))


def test_training_testing_and_comparing_embedded_models(tmp_path, tiny_root, head, capsys):
    """Trained with 32 dimensions, evaluated without saying so, compared with an older one of the same dimension."""
    folder = tmp_path / "new"
    command = training(tiny_root, folder, "model.embedding", "32")
    assert main(command) == 0
    new = str(folder / "model" / "model.pth.tar-1")
    trained = load_checkpoint(new)
    assert len(trained["state_dict"]["embedding.0.weight"]) == 32
    assert trained["config"]["model"]["embedding"] == 32
    of_training = json.loads((folder / "results.json").read_text())["targets"][TINY]

    test = ["--model", "osnet_x0_25", "--weights", new, "--root", str(tiny_root), "-t", TINY, *SMALL]
    assert evaluate(["--save-dir", str(tmp_path / "test"), *test]) == 0
    found = json.loads((tmp_path / "test" / "results.json").read_text())["targets"][TINY]
    assert found["mAP"] == of_training["mAP"]
    resumed = ["--model", "osnet_x0_25", "--save-dir", str(tmp_path / "again"), "--root", str(tiny_root), "-t", TINY]
    assert evaluate([*resumed, *SMALL, "model.resume", new, "model.pretrained", "False"]) == 0

    versions = ["--version", "osnet_x0_25_ptl", head(32, "osnet_x0_25_ptl"), "--version", "osnet_x0_25", new]
    where = ["--root", str(tiny_root), "-t", TINY, "--config-file", str(folder / "config.yaml")]
    assert compare([*versions, *where, "--save-dir", str(tmp_path / "pair"), *SMALL]) == 0
    matrix = json.loads((tmp_path / "pair" / "results.json").read_text())["targets"][TINY]["matrix"]["mAP"]
    assert matrix[1][1] == pytest.approx(of_training["mAP"], abs=0.05)  # by cosine
    capsys.readouterr()
    versions[2] = head(24, "osnet_x0_25_ptl")
    assert compare([*versions, *where, "--save-dir", str(tmp_path / "pair"), *SMALL]) == 1
    assert "24" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_with_another_head(tmp_path, tiny_root, capsys):
    command = training(tiny_root, tmp_path / "log", "model.embedding", "16")
    assert main(command) == 0
    assert main([*command, "--resume"]) == 0
    assert main([*command, "model.embedding", "8", "--resume"]) == 1
    assert "model.embedding was 16 and is 8" in capsys.readouterr().err


def test_configuration_of_the_new_model_for_an_old_one_without_a_head(tmp_path, tiny_root, plain, head):
    """The dimension of each version is that of its weights, whatever the configuration of the training says."""
    file = tmp_path / "config.yaml"
    file.write_text("model:\n  embedding: 512\n")
    versions = ["--version", "osnet_x0_25", plain, "--version", "osnet_x0_25", head(512)]
    where = ["--root", str(tiny_root), "-t", TINY, "--config-file", str(file), "--save-dir", str(tmp_path / "out")]
    assert compare([*versions, *where, *SMALL]) == 0


@pytest.mark.slow
def test_an_embedded_teacher_and_student(tmp_path, tiny_root, head, capsys):
    weights = head(32, "osnet_x0_25_ptl")
    command = training(
        tiny_root,
        tmp_path / "std",
        "loss.name",
        "std",
        "std.teacher",
        "osnet_x0_25_ptl",
        "std.teacher_weights",
        weights,
    )
    assert main(command) == 1
    assert "512 dimensions and the teacher's 32" in capsys.readouterr().err
    assert main([*command, "model.embedding", "32", "--dry-run"]) == 0
    assert main([*command, "model.embedding", "32"]) == 0
    student = str(tmp_path / "std" / "model" / "model.pth.tar-1")
    tested = ["test.evaluate", "True", "model.load_weights", student, "data.save_dir", str(tmp_path / "test")]
    assert main([*command, *tested, "std.teacher_weights", ""]) == 0


def stages_of(folder, *models):
    """A chain of stages on the same images, each with settings of its model."""
    lines = "".join(f"  - {{name: s{number}, model: {{{model}}}}}\n" for number, model in enumerate(models, 1))
    (folder / "chain.yaml").write_text(f"""
model: {{name: osnet_x0_25, pretrained: False}}
data: {{height: 64, width: 32, workers: 0, sources: [{TINY}], save_dir: {folder}/log}}
train: {{max_epoch: 1, batch_size: 4}}
chain:
{lines}""")
    return ["--config-file", str(folder / "chain.yaml"), "--root"]


@pytest.mark.slow
def test_a_head_goes_from_stage_to_stage(tmp_path, tiny_root):
    command = stages_of(tmp_path, "embedding: 0", "embedding: 16", "name: osnet_x0_25_ptl")
    assert main([*command, str(tiny_root)]) == 0
    paths = [tmp_path / "log" / f"{number}-s{number}" / "model" / "model.pth.tar-1" for number in (1, 2, 3)]
    assert [read_weights(str(path)).embedding for path in paths] == [0, 16, 16]
    assert main([*command, str(tiny_root), "--resume"]) == 0


def test_stages_with_heads_that_differ_stop_before_the_first(tmp_path, tiny_root, head, capsys):
    command = stages_of(tmp_path, "embedding: 16", "embedding: 0", "embedding: 8")
    assert main([*command, str(tiny_root)]) == 1
    error = capsys.readouterr().err
    assert "Stage 3 ('s3'): model.embedding is 8, and the embedding head of stage 2 has 16 dimensions" in error
    command = stages_of(tmp_path, "embedding: 16", f"embedding: 8, load_weights: {head(24)}")
    assert main([*command, str(tiny_root)]) == 1
    assert "Stage 2 ('s2'): model.embedding is 8, and the embedding head of " in capsys.readouterr().err
    assert not (tmp_path / "log").exists()
