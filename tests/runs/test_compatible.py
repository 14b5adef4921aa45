"""Backward-compatible training from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchreid
from helpers import configure, main, parse, run

from torchreid_ptl.build import objectives
from torchreid_ptl.build.training import build_datamanager, build_engine
from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import ConfigError, load_config
from torchreid_ptl.data.features import save_features
from torchreid_ptl.data.in_order import training_images
from torchreid_ptl.data.old_features import BankError, OldFeatures, names_of
from torchreid_ptl.data.training_list import NAME as TRAINING_LIST
from torchreid_ptl.data.training_list import training_list, write_training_list
from torchreid_ptl.engines import OldModel, Preprocessing, SoftmaxObjective
from torchreid_ptl.evaluation import EvaluationOptions, compatibility
from torchreid_ptl.losses import registered_losses
from torchreid_ptl.models import Embedded
from torchreid_ptl.runtime.checkpoint import load_checkpoint
from torchreid_ptl.runtime.seeding import seed_everything

ROOT = Path(__file__).parents[2]
TINY = "drawn_pedestrians_tiny"


def build(name="osnet_x0_25", num_classes=4, seed=3):
    torch.manual_seed(seed)
    return torchreid.models.build_model(name, num_classes, pretrained=False, use_gpu=False)


def saved(path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": build(**options).state_dict()}, path)
    return str(path)


@pytest.fixture
def old(tmp_path):
    """Weights in the folder of a run."""
    return saved(tmp_path / "old" / "model" / "old.pth")


def asked(tmp_path, root, old, *more):
    return [
        "--root", str(root), "-s", TINY, "-t", TINY, "model.name", "osnet_x0_25", "model.pretrained", "False",
        "data.height", "64", "data.width", "32", "data.workers", "0", "data.save_dir", str(tmp_path / "log"),
        "train.batch_size", "8", "train.max_epoch", "1", "test.visrank", "False", "eval.rank_list_queries", "1",
        "loss.name", "compatible", *(["compat.old", "osnet_x0_25", "compat.old_weights", old] if old else []), *more,
    ]  # fmt: skip


def engine_of(*arguments):
    config = configure(parse(arguments[0]))
    seed_everything(config.train.seed)
    return build_engine(config, build_datamanager(config))


def step(engine):
    """The first step of a run; the rest costs more than it tells."""
    return engine.forward_backward(next(iter(engine.datamanager.train_loader)))


def bits(engine):
    return {name: value.clone() for name, value in engine.model.state_dict().items()}


@pytest.mark.parametrize("name", registered_losses())
def test_each_loss_by_its_name(tmp_path, tiny_root, old, name):
    more = ["compat.losses", f"['{name}']", *(["compat.objective", "none"] if name == "mixbct" else [])]
    engine = engine_of(asked(tmp_path, tiny_root, old, *more))
    figures = step(engine)
    if name == "mixbct":
        assert set(figures) == {"loss", "acc"}
        assert engine.objective.base is None
    else:
        assert {"loss_x", f"loss_{name}"} <= figures.keys()
        assert figures[f"loss_{name}"] > 0
    learning = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
    criterion = {id(p) for p in engine.objective.parameters()}
    assert criterion <= learning
    assert bool(criterion) == (name in ("mixbct", "advbct"))
    path = tmp_path / "log" / "old_features.npy"
    assert len(OldFeatures.load(path, engine.objective.fingerprint())) == 16


def test_mixbct_beside_another_objective_is_told(tmp_path, tiny_root, old, capsys):
    engine = engine_of(asked(tmp_path, tiny_root, old, "compat.losses", "['mixbct']"))
    assert {"loss_x", "loss_mixbct"} <= step(engine).keys()
    assert "MixBCT by itself is compat.objective none" in capsys.readouterr().out


def test_a_run_is_compared_with_its_old_model(tmp_path, tiny_root, old, capsys):
    """What is left says the same as the functions that measure it; an image of another size is the old model's own."""
    independent = saved(tmp_path / "independent.pth", seed=8)
    style = ["compat.old_height", "48", "compat.old_width", "24", "compat.old_norm_mean", "[0.5, 0.5, 0.5]"]
    style += ["compat.old_norm_std", "[0.2, 0.2, 0.2]", "compat.independent", independent]
    engine = run(configure(parse(asked(tmp_path, tiny_root, old, *style))))
    folder = tmp_path / "log" / "comparison"
    found = json.loads((folder / "results.json").read_text())
    assert set(found["versions"]) == {"old", "new", "independent"}
    (update,) = found["targets"][TINY]["updates"]
    frozen = OldModel(build(), Preprocessing(48, 24, (0.5,) * 3, (0.2,) * 3))
    assert engine.objective.old_model.expects == frozen.expects
    sides = [engine.test_loader[TINY][side].dataset.dataset.data for side in ("query", "gallery")]
    old_sides = [frozen.describe(images, "old") for images in sides]
    alone = [OldModel(build(seed=8), Preprocessing(64, 32)).describe(images, "alone") for images in sides]
    new = engine.descriptors[TINY]
    for side, images in zip(new, sides, strict=True):
        assert [side.pids.tolist(), side.camids.tolist()] == [[image[n] for image in images] for n in (1, 2)]
    options = EvaluationOptions(seed=engine.config["train"]["seed"])
    expected = compatibility(new, old_sides, options, independent=alone).as_dict()
    for test in ("old_test", "cross_test", "self_test", "independent", "update_gain"):
        assert update[test] == pytest.approx(expected[test], abs=1e-6), test
    results = json.loads((tmp_path / "log" / "results.json").read_text())
    assert results["targets"][TINY]["mAP"] > 0
    for name in ("report.html", "config.yaml", f"matrix_{TINY}.csv"):
        assert (folder / name).is_file(), name
    out = capsys.readouterr().out
    assert "Old model osnet_x0_25" in out
    assert "old features [1/1]" in out
    assert "loss_rbcl" in out
    state = load_checkpoint(tmp_path / "log" / "model" / "model.pth.tar-1")
    assert not [name for name in (*state["state_dict"], *state["objective"]) if "old" in name]


def test_only_testing_needs_no_old_weights_and_leaves_no_bank(tmp_path, tiny_root):
    new = saved(tmp_path / "new.pth", seed=4)
    test = ["compat.old", "osnet_x0_25", "test.evaluate", "True", "model.load_weights", new]
    assert main(asked(tmp_path, tiny_root, "", *test)) == 0
    assert not (tmp_path / "log" / "old_features.npy").exists()
    assert not (tmp_path / "log" / "comparison").exists()
    assert json.loads((tmp_path / "log" / "results.json").read_text())["epochs"] == 0


@pytest.mark.slow
def test_a_file_of_features_instead_of_the_model(tmp_path, tiny_root, old, capsys):
    """It names images of another place and lacks some; the training goes as it would with the model."""
    with_model = engine_of(asked(tmp_path, tiny_root, old))
    side = with_model.objective.old
    names = [f"/gone/{name}" for name in names_of([i[0] for i in training_images(with_model.datamanager)], tiny_root)]
    path = tmp_path / "old.npz"
    save_features(path, side.gallery, side.gallery_pids.tolist(), side.gallery_camids.tolist(), names)
    with_file = step(engine_of(asked(tmp_path, tiny_root, "", "compat.features", str(path))))
    with_model = step(engine_of(asked(tmp_path, tiny_root, old)))
    assert with_model == with_file
    save_features(path, side.gallery[2:], side.gallery_pids[2:].tolist(), side.gallery_camids[2:].tolist(), names[2:])
    assert main(asked(tmp_path, tiny_root, "", "compat.features", str(path))) == 0
    out = capsys.readouterr().out
    assert f"Old features: 14 of {path}" in out
    assert "2 training images have no old feature" in out
    assert "No old model to compare with" in out
    assert not (tmp_path / "log" / "comparison").exists()


@pytest.mark.slow
def test_a_bank_for_several_runs(tmp_path, tiny_root, old, capsys):
    bank = tmp_path / "shared" / "old.npy"
    kept = ["compat.bank", str(bank)]
    engine_of(asked(tmp_path, tiny_root, old, *kept))
    assert f"Old features: 16 in {bank}" in capsys.readouterr().out
    assert not (tmp_path / "log" / "old_features.npy").exists()
    engine_of(asked(tmp_path, tiny_root, old, *kept, "compat.losses", "['l2']"))
    assert f"Old features: 16 of {bank}" in capsys.readouterr().out
    other = saved(tmp_path / "other.pth", seed=4)
    with pytest.raises(BankError, match="another old model, preprocessing or list of images"):
        engine_of(asked(tmp_path, tiny_root, other, *kept))
    for weights in (old, other):  # in the folder of the run it is replaced
        engine_of(asked(tmp_path, tiny_root, weights))
    assert "old_features.npy is replaced" in capsys.readouterr().out


def test_weights_of_0_are_the_plain_run_of_the_same_command(tmp_path, tiny_root, old):
    """Although a criterion has weights of its own to draw."""
    plain = engine_of(asked(tmp_path, tiny_root, "", "loss.name", "softmax"))
    expected = step(plain)
    none = ["compat.losses", "['advbct', 'rbcl']", "compat.advbct.weight", "0", "compat.rbcl.weight", "0"]
    compatible = engine_of(asked(tmp_path, tiny_root, old, *none))
    assert isinstance(compatible.objective.base, SoftmaxObjective)
    assert step(compatible) == expected
    one, other = bits(plain), bits(compatible)
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


@pytest.mark.slow
def test_an_old_model_of_another_dimension(tmp_path, tiny_root, monkeypatch, capsys):
    weights = saved(tmp_path / "old.pth", name="shufflenet_v2_x0_5")  # 1024 dimensions
    options = asked(tmp_path, tiny_root, "", "compat.old", "shufflenet_v2_x0_5", "compat.old_weights", weights)
    built, build_model = [], objectives.build_model
    monkeypatch.setattr(objectives, "build_model", lambda *given: built.append(1) or build_model(*given))
    matched = engine_of(options)
    assert len(built) == 1
    assert isinstance(matched.model, Embedded)
    assert matched.model.dim == matched.objective.dim == 1024
    wanted = engine_of([*options, "loss.name", "softmax", "model.embedding", "1024"])
    one, other = bits(matched), bits(wanted)
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    for rule, dim in (("truncate", 512), ("pad", 1024)):
        engine = engine_of([*options, "compat.embedding", rule])
        assert engine.objective.dim == dim
        assert step(engine)["loss_rbcl"] > 0
    monkeypatch.setattr(OldModel, "describe", lambda *_, **__: pytest.fail("long work before the refusal"))
    assert main([*options, "compat.embedding", "none"]) == 1
    assert "512 dimensions and old ones 1024" in capsys.readouterr().err
    assert main([*options, "model.embedding", "64"]) == 1
    assert "model.embedding is 64 and old descriptors have 1024" in capsys.readouterr().err


@pytest.mark.slow
def test_the_old_classifier(tmp_path, tiny_root, old, capsys):
    """Found beside the old checkpoints, or named; unless it knows all identities it must be asked for."""
    bct = ["compat.losses", "['bct']"]
    engine = engine_of(asked(tmp_path, tiny_root, old, *bct))
    assert "class means replace the old classifier, for the list" in capsys.readouterr().out
    assert engine.objective.old.old_classifier is None
    needed = [*bct, "compat.bct.prototypes", "classifier"]
    with pytest.raises(ConfigError, match="the list of the old training images is not at .*give it, or choose auto"):
        engine_of(asked(tmp_path, tiny_root, old, *needed))
    images = training_images(engine.datamanager)
    theirs = [(path, {1: 0, 3: 1, 0: 2}[pid], camid) for path, pid, camid, *_ in images if pid != 2]
    write_training_list(tmp_path / "old" / TRAINING_LIST, training_list(theirs, str(tiny_root)))
    engine = engine_of(asked(tmp_path, tiny_root, old, *needed))
    assert "3 of 4 identities have a class of the old classifier" in capsys.readouterr().out
    assert engine.objective.old.old_classes.tolist() == [2, 0, -1, 1]
    assert torch.equal(engine.objective.old.old_classifier, build().classifier.weight)
    assert step(engine)["loss_bct"] > 0
    engine = engine_of(asked(tmp_path, tiny_root, old, *bct))
    assert "class means for all identities" in capsys.readouterr().out
    means = ["compat.losses", "['bct']", "compat.bct.prototypes", "means"]
    by_means = step(engine_of(asked(tmp_path, tiny_root, old, *means)))
    assert step(engine_of(asked(tmp_path, tiny_root, old, *bct))) == by_means
    whole = [(path, pid, camid) for path, pid, camid, *_ in images]
    write_training_list(tmp_path / "whole.csv", training_list(whole, str(tiny_root)))
    engine = engine_of(asked(tmp_path, tiny_root, old, *bct, "compat.old_images", str(tmp_path / "whole.csv")))
    assert (engine.objective.old.old_classes >= 0).all()
    assert step(engine)["loss_bct"] != by_means["loss_bct"]
    small = saved(tmp_path / "small.pth", num_classes=2)
    named = [*bct, "compat.old_images", str(tmp_path / "old" / TRAINING_LIST)]
    with pytest.raises(ConfigError, match="counts 3 identities and the old classifier 2"):
        engine_of(asked(tmp_path, tiny_root, small, *named))
    with pytest.raises(FileNotFoundError, match="No list of training images nowhere.csv"):
        engine_of(asked(tmp_path, tiny_root, old, *bct, "compat.old_images", "nowhere.csv"))
    feature_file = tmp_path / "old.npz"
    save_features(feature_file, np.ones((1, 512)), [0], [0], [images[0][0]])
    with pytest.raises(ConfigError, match="prototypes is classifier, and the old model has no linear classifier"):
        engine_of(asked(tmp_path, tiny_root, "", *needed, "compat.features", str(feature_file)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["compat.losses", "[]"], "compat.losses is empty"),
        (["compat.losses", "['rbcl', 'l2', 'rbcl']"], "name each loss once"),
        (["compat.old_weights", ""], "needs old features"),
        (["compat.old", "osnet"], "compat.old is 'osnet'"),
        (["compat.features", "old.npz"], "old features come from one of them"),
        (
            [
                "compat.old",
                "",
                "compat.old_weights",
                "",
                "compat.features",
                "old.npz",
                "compat.independent",
                "alone.pth",
            ],
            "without the old model nothing is compared",
        ),
        (["compat.objective", "none"], "without mixbct has no identity loss"),
        (
            ["compat.objective", "none", "compat.losses", "['mixbct']", "compat.mixbct.weight", "0"],
            "compat.mixbct.weight 0 has no identity loss",
        ),
        (
            ["compat.objective", "none", "compat.losses", "['mixbct']", "train.fixbase_epoch", "1"],
            "train.fixbase_epoch",
        ),
        (["compat.objective", "triplet"], "set sampler.train_sampler RandomIdentitySampler"),
        (["compat.objective", "margin_softmax", "model.name", "mgn"], "MGN trains several"),
        (["loss.name", "margin_softmax", "model.name", "mgn"], "MGN trains several"),
        (["compat.bank", "old.pt"], "is a file *.npy"),
        (["compat.rbcl.weight", "-1"], "compat.rbcl.weight is -1"),
        (["compat.rbcl.weight", "1e999"], "compat.rbcl.weight is inf"),
        (
            ["compat.losses", "['nccl']", "compat.nccl.queue_size", "0"],
            "compat.nccl.queue_size is 0; allowed: from 1 to",
        ),
        (["compat.losses", "['rbc']"], "compat.losses is 'rbc': did you mean 'rbcl'?"),
        (["compat.rbcl.gallery", "nca", "compat.rbcl.neighbours", "0"], "compat.rbcl.neighbours is 0"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, tiny_root, more, message):
    with pytest.raises(ConfigError) as caught:
        configure(parse(asked(tmp_path, tiny_root, "old.pth", *more)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["compat.rbcl.tau", "0"], "tau is 0"),
        (["compat.old_weights", "{other}"], "belongs to another model: nothing in it fits"),
        (["compat.old_weights", "{part}"], "does not fill the old model osnet_x0_25"),
        (["compat.independent", "none.pth"], "compat.independent names none.pth, which does not exist"),
        (["compat.independent", "{other}"], "belongs to another model"),
        (
            ["compat.losses", "['lce']", "model.name", "osnet_x0_25", "compat.embedding", "pad", "{wide}"],
            "needs classifier",
        ),
        (["compat.old", "", "compat.features", "none.npz"], "compat.features names none.npz, which does not exist"),
        (
            ["train.batch_size", "4", "compat.objective", "margin_softmax", "loss.margin_softmax.scale", "0"],
            "scale is 0",
        ),
    ],
)
def test_what_is_wrong_is_said_before_old_features_are_computed(
    tmp_path, tiny_root, old, monkeypatch, capsys, more, message
):
    monkeypatch.setattr(OldModel, "describe", lambda *_, **__: pytest.fail("long work before the refusal"))
    whole = build().state_dict()
    files = {"other": tmp_path / "other.pth", "part": tmp_path / "part.pth"}
    torch.save(build("resnet18").state_dict() if "{other}" in more else {"a": torch.ones(1)}, files["other"])
    torch.save({name: value for name, value in whole.items() if not name.startswith("fc")}, files["part"])
    if "{wide}" in more:
        wide = saved(tmp_path / "wide.pth", name="shufflenet_v2_x0_5")
        more = [*more[:-1], "compat.old", "shufflenet_v2_x0_5", "compat.old_weights", wide]
    more = [option.format(**files) for option in more]
    assert main(asked(tmp_path, tiny_root, old, *more)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("prototypes", ["auto", "classifier"])
def test_a_dry_run_needs_nothing_that_the_run_needs(tmp_path, monkeypatch, capsys, prototypes):
    monkeypatch.chdir(tmp_path)
    more = ["compat.losses", "['bct', 'nccl']", "compat.bct.prototypes", prototypes, "compat.bank", "b.npy"]
    options = asked(tmp_path, "/nowhere", "/nowhere/old.pth", *more, "compat.independent", "/nowhere/alone.pth")
    assert main([*options, "--dry-run"]) == 0
    assert "Dry run of osnet_x0_25 done: 2 steps" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_chain_of_the_quickstart_names_its_stages(tmp_path, monkeypatch, capsys):
    """The old model and the independent one are stages of the chain."""
    monkeypatch.chdir(tmp_path)
    config = ROOT / "configs" / "compat" / "quickstart.yaml"
    small = ["data.height", "64", "data.width", "32", "test.visrank", "False", "eval.rank_list_queries", "1"]
    assert main(["--config-file", str(config), *small, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "Dry run of 3 stages done" in out
    assert "Old model osnet_x0_25, " in out
    assert "Independent model osnet_x0_25_ptl, " in out
    assert "cross test" in out
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_interrupted(tmp_path, tiny_root, old, capsys):
    """Goes on with its bank; not with another old model."""
    more = ["train.max_epoch", "2", "train.lr_scheduler", "single_step", "compat.losses", "['nccl']"]
    config = configure(parse(asked(tmp_path, tiny_root, old, *more, "train.max_epoch", "1")))
    seed_everything(1)
    engine = build_engine(config, build_datamanager(config))
    engine.run(save_dir=config.data.save_dir, max_epoch=1)
    resumed = engine_of(asked(tmp_path, tiny_root, old, *more, "model.resume", "auto"))
    assert "old_features.npy" in capsys.readouterr().out
    resumed.run(save_dir=config.data.save_dir, max_epoch=2, resume="auto")
    assert int(resumed.objective.losses["nccl"].seen) == 32
    other = saved(tmp_path / "other.pth", seed=4)
    assert main(asked(tmp_path, tiny_root, other, *more, "model.resume", "auto")) == 1
    assert "was trained with another frozen model" in capsys.readouterr().err


def test_the_least_that_a_configuration_says():
    config = load_config(None, ["loss.name", "compatible", "compat.old", "resnet50", "compat.old_weights", "a.pth"])
    validate(config)
    assert config.compat.losses == ["rbcl"]
    assert config.compat.objective == "softmax"
