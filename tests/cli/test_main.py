"""The command line."""

import json
import os
import re
from pathlib import Path

import pytest
from helpers import configure, configure_chain, main, parse

from torchreid_ptl.config.loading import ConfigError, load_config, to_dict
from torchreid_ptl.config.shipped import configurations
from torchreid_ptl.data.training_list import NAME as TRAINING_LIST
from torchreid_ptl.data.training_list import read_training_list
from torchreid_ptl.engines import ImagePTLEngine
from torchreid_ptl.runs.dry_run import shrunk
from torchreid_ptl.runtime.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
UNSUPERVISED = ("cross_domain_unsupervised", "osnet_cross_domain_unsupervised")
COMPAT = sorted(path.stem for path in (ROOT / "configs" / "compat").glob("*.yaml"))
SETTINGS = [name for name in COMPAT if name != "quickstart" and not name.endswith("_old")]
METHODS = sorted(path.stem for path in (ROOT / "configs" / "compat" / "methods").glob("*.yaml"))
TRIED = ("market1501/rbcl", "market1501/mixbct", "cross_domain_unsupervised/rbcl", "osnet_cross_domain/rbcl_nca_lift")
"""What is run dry of compatible training; other pairs differ from these in a line that has tests of its own."""
NAMES = [name for name in configurations() if not name.startswith("compat/")]
PAIRS = [
    (f"compat/{setting}", f"compat/methods/{method}")
    for setting in SETTINGS
    for method in METHODS
    if setting not in UNSUPERVISED or method not in ("lce", "mixbct")
]
CONFIGS = [*((name,) for name in NAMES), *((f"compat/{name}",) for name in COMPAT), *PAIRS]
DRY = [
    *((name,) for name in NAMES),
    ("compat/quickstart",),
    *((f"compat/{setting}", f"compat/methods/{method}") for setting, method in (pair.split("/") for pair in TRIED)),
]


def dry_run_of(names):
    """What a dry run of files does: its settings but for data sets, folders and files, which it replaces."""
    parsed = parse(["--config-file", *names])
    chain = configure_chain(parsed)
    if chain is None:
        return _tried(configure(parsed))
    return str([(_tried(stage.asked), stage.start, stage.references) for stage in chain.stages])


def _tried(config):
    tried = shrunk(config, "folder")
    tried.defrost()
    tried.std.teacher_weights = tried.compat.old_weights = tried.compat.bank = tried.compat.independent = ""
    return tried.dump()


REPRESENTATIVES = list({dry_run_of(names): names for names in reversed(DRY)}.values())
"""One of those whose dry runs would do the same: the data sets, in which the others differ, are replaced."""
TINY = "drawn_pedestrians_tiny"


def small(tmp_path, root, *more):
    return [
        "--config-file", str(ROOT / "configs" / "quickstart.yaml"), "--root", str(root), "-s", TINY, "-t", TINY,
        "data.height", "64", "data.width", "32", "data.workers", "0", "train.batch_size", "4", "train.max_epoch", "2",
        "data.save_dir", str(tmp_path / "log"), *more,
    ]  # fmt: skip


def test_switches_of_the_host():
    parsed = parse(
        ["--config-file", "", "-s", "market1501", "dukemtmcreid", "-t", "msmt17", "--transforms", "random_erase"]
        + ["--root", "/data", "train.lr", "0.1"]
    )
    config = configure(parsed)
    assert config.data.sources == ["market1501", "dukemtmcreid"]
    assert config.data.targets == ["msmt17"]
    assert config.data.transforms == ["random_erase"]
    assert config.data.root == "/data"
    assert config.train.lr == 0.1


def test_keys_behind_a_switch_with_several_names():
    config = configure(parse(["-s", "market1501", "train.lr", "0.1", "train.max_epoch", "3"]))
    assert config.data.sources == ["market1501"]
    assert (config.train.lr, config.train.max_epoch) == (0.1, 3)
    config = configure(parse(["-s", "market1501", "use_gpu", "False"]))
    assert (config.data.sources, config.use_gpu) == (["market1501"], False)


def test_a_run_leaves_results_configuration_pictures_events_and_a_log(tmp_path, tiny_root, capsys):
    assert main(small(tmp_path, tiny_root, "test.ranks", "[1, 5, 500]")) == 0
    folder = tmp_path / "log"
    results = json.loads((folder / "results.json").read_text())
    target = results["targets"][TINY]
    assert 0 < target["mAP"] <= 1
    assert 0 < target["mINP"] <= 1
    assert list(target["cmc"]) == ["1", "5"]
    assert (target["queries"], target["gallery"]) == (6, 10)
    assert {"torch", "torchreid", "seed", "device"} <= set(results["provenance"])
    assert "test.ranks beyond the 10 gallery images" in capsys.readouterr().out
    for name in ("curves.png", "cmc.png", f"ranklist_{TINY}.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG"), name
    assert list(folder.glob("events.out.tfevents*"))
    assert "Testing on" in next(folder.glob("train.log-*")).read_text()
    final = to_dict(load_config(folder / "config.yaml"))
    assert final == results["config"]
    assert final["train"]["max_epoch"] == 2


@pytest.mark.slow
def test_the_same_seed_gives_the_same_scores(tmp_path, tiny_root):
    scores = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert main(small(tmp_path / name, tiny_root, "test.visrank", "False")) == 0
        scores.append(json.loads((tmp_path / name / "log" / "results.json").read_text())["targets"])
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_only_testing(tmp_path, tiny_root):
    assert main(small(tmp_path, tiny_root)) == 0
    trained = json.loads((tmp_path / "log" / "results.json").read_text())["targets"]
    weights = tmp_path / "log" / "model" / "model.pth.tar-2"
    again = small(tmp_path, tiny_root, "data.save_dir", str(tmp_path / "again"), "test.evaluate", "True")
    assert main([*again, "model.load_weights", str(weights)]) == 0
    results = json.loads((tmp_path / "again" / "results.json").read_text())
    assert results["targets"] == trained
    assert results["epochs"] == 0
    assert not (tmp_path / "again" / "curves.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "none.yaml"], "FileNotFoundError: No configuration"),
        (["train.lrr", "1"], "ConfigError: Unknown key 'train.lrr'"),
        (
            ["--root", "/nowhere", "-s", "market1501"],
            "FileNotFoundError: The folder of data set 'market1501' is missing",
        ),
        (["model.name", "resnet51"], "ConfigError: model.name is 'resnet51': did you mean"),
    ],
)
def test_a_users_mistake_is_one_line_and_a_status(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_batch_smaller_than_two_identities(tmp_path, tiny_root, capsys):
    arguments = small(
        tmp_path, tiny_root, "loss.name", "triplet", "sampler.train_sampler", "RandomIdentitySampler",
        "sampler.num_instances", "4",
    )  # fmt: skip
    assert main(arguments) == 1
    assert "two identities at least. Choose 8, 12" in capsys.readouterr().err


def test_a_second_run_in_the_same_folder_keeps_the_first(tmp_path, tiny_root):
    arguments = small(tmp_path, tiny_root, "train.max_epoch", "1")
    assert main(arguments) == 0
    first = (tmp_path / "log" / "results.json").read_text()
    assert main(arguments) == 0
    earlier = tmp_path / "log" / "earlier-1"
    assert (earlier / "results.json").read_text() == first
    assert (earlier / "model" / "model.pth.tar-1").is_file()
    assert (tmp_path / "log" / "model" / "model.pth.tar-1").is_file()


def test_a_run_leaves_the_images_it_trained_on_as_the_classes_they_were(tmp_path, tiny_root, monkeypatch):
    seen = {}
    forward = ImagePTLEngine.forward_backward

    def noting(self, batch):
        assert (tmp_path / "log" / TRAINING_LIST).is_file()  # before the first step
        names = [Path(path).relative_to(tiny_root).as_posix() for path in batch["impath"]]
        seen.update(zip(names, zip(batch["pid"].tolist(), batch["camid"].tolist(), strict=True), strict=True))
        return forward(self, batch)

    monkeypatch.setattr(ImagePTLEngine, "forward_backward", noting)
    assert main(small(tmp_path, tiny_root, "test.visrank", "False")) == 0
    images = read_training_list(tmp_path / "log" / TRAINING_LIST)
    assert dict(zip(images.paths, zip(images.labels, images.cameras, strict=True), strict=True)) == seen
    assert (len(images), images.num_classes) == (16, 4)


@pytest.mark.slow
def test_the_list_of_images_stays_with_the_checkpoints(tmp_path, tiny_root, capsys):
    arguments = small(tmp_path, tiny_root, "train.max_epoch", "1")
    folder = tmp_path / "log"
    assert main(arguments) == 0
    before = (folder / TRAINING_LIST).read_bytes()
    assert main([*arguments, "test.evaluate", "True", "model.resume", "auto"]) == 0
    weights = str(folder / "model" / "model.pth.tar-1")
    assert main([*arguments, "test.evaluate", "True", "model.load_weights", weights]) == 0
    assert not (folder / "earlier-1" / TRAINING_LIST).exists()
    assert main([*arguments, "--resume"]) == 0
    assert (folder / TRAINING_LIST).read_bytes() == before
    other = list(arguments)
    other[other.index("-s") + 1] = f"data50:{TINY}"
    assert main([*other, "--resume"]) == 1
    assert "holds a run with other settings: data.sources was" in capsys.readouterr().err
    assert (folder / TRAINING_LIST).read_bytes() == before
    assert main(other) == 0
    assert (folder / "earlier-2" / TRAINING_LIST).read_bytes() == before
    assert len(read_training_list(folder / TRAINING_LIST)) == 8


def test_a_list_without_a_checkpoint_is_no_run_to_go_on_with(tmp_path, tiny_root):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / TRAINING_LIST).write_text("path,label,camera\na.jpg,0,0\n")
    assert main(small(tmp_path, tiny_root, "train.max_epoch", "1", "--resume")) == 0
    assert len(read_training_list(folder / TRAINING_LIST)) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.fixbase_epoch", "1", "train.open_layers", "['classifer']"], "train.open_layers names 'classifer'"),
        (["train.staged_lr", "True", "train.new_layers", "['foo']"], "train.new_layers names 'foo'.*Allowed: backbone"),
    ],
)
def test_layers_the_model_does_not_have(tmp_path, tiny_root, capsys, options, message):
    assert main(small(tmp_path, tiny_root, *options)) == 1
    assert re.search(message, capsys.readouterr().err)


def test_an_error_is_in_the_log(tmp_path, tiny_root):
    assert main(small(tmp_path, tiny_root, "train.batch_size", "99")) == 1
    assert "not one batch could be filled" in next((tmp_path / "log").glob("train.log-*")).read_text()


@pytest.mark.parametrize(
    "options",
    [
        ["test.dist_metric", "cosine"],
        ["test.normalize_feature", "True"],
        ["test.rerank", "True"],
        ["eval.flip", "True", "eval.precision", "bfloat16"],
    ],
)
def test_rank_lists_show_the_distances_ranked_by(tmp_path, tiny_root, options, monkeypatch):
    seen = []
    monkeypatch.setattr("torchreid_ptl.report.files.save_rank_list", lambda path, rows, title: seen.extend(rows))
    assert main(small(tmp_path, tiny_root, "train.max_epoch", "0", *options)) == 0
    assert len(seen) == 6
    for row in seen:
        distances = [match.distance for match in row.matches]
        assert distances == sorted(distances)


def test_weights_of_another_model(tmp_path, tiny_root, capsys):
    import torch

    torch.save({"conv1.weight": torch.ones(3)}, tmp_path / "other.pth")
    assert main(small(tmp_path, tiny_root, "model.load_weights", str(tmp_path / "other.pth"))) == 1
    assert "CheckpointError:" in capsys.readouterr().err


@pytest.mark.parametrize("names", CONFIGS, ids="+".join)
def test_every_configuration_is_valid_and_keeps_to_its_own_folder(names):
    parsed = parse(["--config-file", *names])
    chain = configure_chain(parsed)
    config = chain.common if chain else configure(parsed)
    assert config.data.save_dir == "/".join(["log", names[0], *(name.rpartition("/")[2] for name in names[1:])])


@pytest.mark.parametrize("setting", [name.removesuffix("_old") for name in COMPAT if name.endswith("_old")])
def test_a_setting_finds_what_its_old_model_leaves(setting):
    old, new = (configure(parse(["--config-file", f"compat/{name}"])) for name in (f"{setting}_old", setting))
    final = f"{old.data.save_dir}/model/model.pth.tar-{old.train.max_epoch}"
    assert (new.compat.old_weights, new.compat.old) == (final, old.model.name)
    assert new.compat.bank == f"{old.data.save_dir}/old_features.npy"
    assert (new.data.targets, new.loss.name) == (old.data.targets, "softmax")


@pytest.mark.parametrize("name", [f"compat/methods/{method}" for method in METHODS if method != "independent"])
def test_a_method_without_a_setting_is_refused(name):
    with pytest.raises(ConfigError, match="needs old features: compat.old"):
        configure(parse(["--config-file", name]))


@pytest.mark.slow
@pytest.mark.parametrize("names", REPRESENTATIVES, ids="+".join)
def test_every_configuration_runs_dry(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--config-file", *names, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert re.search("done: (each )?2 steps of 8 synthetic images and a test", out)
    assert "[2/2]" in out
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_adamw_one_cycle_and_staged_learning_rates(tmp_path, tiny_root):
    staged = [
        "train.staged_lr",
        "True",
        "train.new_layers",
        "['classifier', 'cells', 'image_cells', 'fusions', 'last']",
    ]
    assert main(small(tmp_path, tiny_root, *staged)) == 0
    groups = load_checkpoint(tmp_path / "log" / "model" / "model.pth.tar-2")["optimizer"]["param_groups"]
    assert groups[0]["max_lr"] == pytest.approx(0.1 * groups[1]["max_lr"])


@pytest.mark.parametrize("optim", ["adam", "amsgrad", "sgd", "rmsprop", "radam"])
def test_optimisers_of_the_host(tmp_path, tiny_root, optim):
    more = ["train.optim", optim, "train.lr_scheduler", "cosine", "train.lr", "0.0003", "train.max_epoch", "1"]
    assert main(small(tmp_path, tiny_root, *more, "test.visrank", "False")) == 0
