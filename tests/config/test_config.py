"""Configuration: loading, inheritance, validation, dump."""

import re
from pathlib import Path

import pytest

from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import ConfigError, default_config, get, load_config, to_dict
from torchreid_ptl.config.settings import SETTINGS

CONFIGS = Path(__file__).parents[2] / "configs"
HOST_DEFAULTS = {  # a sample of torchreid's scripts/default_config.py
    "model.name": "resnet50",
    "data.transforms": ["random_flip"],
    "train.lr": 0.0003,
    "train.stepsize": [20],
    "loss.triplet.weight_x": 0.0,
    "test.ranks": [1, 5, 10, 20],
    "sgd.momentum": 0.9,
    "adam.beta2": 0.999,
}
STD = ["loss.name", "std", "std.teacher", "resnet50_ptl", "std.teacher_weights", "x.pth"]


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_defaults_are_the_hosts():
    config = default_config()
    assert {key: get(config, key) for key in HOST_DEFAULTS} == HOST_DEFAULTS


def test_defaults_are_not_shared_between_runs():
    default_config().data.transforms.append("random_erase")
    assert default_config().data.transforms == ["random_flip"]


def test_every_key_says_what_it_means():
    assert all(setting.help for setting in SETTINGS.values())


def test_bases_are_overridden_in_order(tmp_path):
    path = write(
        tmp_path,
        top="_BASE_: [one.yaml, sub/two.yaml]\ntrain:\n  max_epoch: 3\n",
        one="train:\n  max_epoch: 1\n  lr: 0.1\n  batch_size: 8\n",
    )
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", two="_BASE_: ../three.yaml\ntrain:\n  lr: 0.2\n")
    write(tmp_path, three="train:\n  lr: 0.3\n  print_freq: 7\n")
    config = load_config(path, ["train.print_freq", "9"])
    train = config.train
    assert (train.max_epoch, train.lr, train.batch_size, train.print_freq) == (3, 0.2, 8, 9)


def test_a_circle_of_bases(tmp_path):
    path = write(tmp_path, a="_BASE_: b.yaml\n", b="_BASE_: a.yaml\n")
    with pytest.raises(ConfigError, match=r"in a circle: .*a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        load_config(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No configuration .*none\.yaml: neither"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"base\.yaml, which .*top\.yaml builds upon"):
        load_config(write(tmp_path, top="_BASE_: base.yaml\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  lrr: 0.1\n", r"Unknown key 'train.lrr' in .*bad\.yaml: did you mean 'train.lr'\?"),
        ("trian:\n  max_epoch: 1\n", "did you mean 'train.max_epoch'"),
        ("max_epoch: 1\n", "did you mean 'train.max_epoch'"),
        ("train: 5\n", "'train' in .*: it is a section with the keys train.optim"),
        ("train:\n  lr: high\n", r"train.lr in .* is 'high' \(str\); expected a number such as 0.0003"),
        ("train:\n  max_epoch: 1.5\n", "expected an integer such as 60"),
        ("train:\n  max_epoch: True\n", "expected an integer"),
        ("data:\n  sources: market1501\n", r"expected a list of strings such as \['market1501'\]"),
        ("test:\n  ranks: [1, a]\n", "expected a list of integers"),
        ("model:\n  pretrained: 1\n", "expected True or False"),
        ("_BASE_: 5\n", "expected a file name or a list of them"),
        ("_BASE_:\n", "expected a file name or a list of them"),
        ("- 1\n", "holds a list; a configuration is a tree"),
        ("a: [\n", "no valid YAML"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, bad=text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.lr"], "'train.lr' has no value"),
        (["train.lrr", "1"], "Unknown key 'train.lrr' in the command line: did you mean 'train.lr'"),
        (["train.lr", "x"], "expected a number"),
        (["train.lr", "{[]:1}"], "expected a number"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, options)


def test_options_of_every_type():
    config = load_config(
        None,
        ["train.lr", "1e-3", "train.stepsize", "[10,20]", "data.sources", "['a', 'b']", "model.pretrained", "False",
         "data.norm_mean", "(0, 0.5, 1)", "train.weight_decay", "0", "data.root", "/data"],
    )  # fmt: skip
    assert config.train.lr == 0.001
    assert config.train.stepsize == [10, 20]
    assert config.data.sources == ["a", "b"]
    assert config.model.pretrained is False
    assert config.data.norm_mean == [0, 0.5, 1]
    assert config.train.weight_decay == 0.0
    assert config.data.root == "/data"
    assert load_config(None, ["data.save_dir", "123"]).data.save_dir == "123"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.name", "osnet_x025_ptl"], "model.name is 'osnet_x025_ptl': did you mean 'osnet_x0_25_ptl'"),
        (["data.sources", "['market']"], "is 'market': did you mean 'market1501'"),
        (["data.targets", "[]"], "name at least one data set"),
        (["loss.name", "tripplet"], "loss.name is 'tripplet': did you mean 'triplet'"),
        (["sampler.train_sampler", "IdentitySampler"], "did you mean 'RandomIdentitySampler'"),
        (["train.optim", "adan"], "train.optim is 'adan'.*Allowed: adam, amsgrad, sgd"),
        (["train.lr_scheduler", "step"], "Allowed: single_step, multi_step, cosine, one_cycle"),
        (["data.transforms", "['random_rotate']"], "data.transforms is 'random_rotate'"),
        (["test.dist_metric", "manhattan"], "Allowed: euclidean, cosine"),
        (["data.type", "video"], "data.type is 'video'.*Allowed: image"),
        (["ptl.start", "warm"], "Allowed: identity, random"),
        (["ptl.state", "keep"], "Allowed: carry, reset"),
        (["data.on_bad_image", "ignore"], "Allowed: error, skip"),
        (["train.precision", "float16"], "Allowed: float32, bfloat16"),
        (["train.batch_size", "1"], "train.batch_size is 1; allowed: from 2 to"),
        (["train.lr", "-0.1"], "train.lr is -0.1; allowed: above 0 to 1000 .learning rate"),
        (["train.lr", "0"], "train.lr is 0.0; allowed: above 0"),
        (["test.ranks", "[0, 1]"], r"test.ranks is \[0, 1\]; allowed: from 1"),
        (["test.ranks", "[]"], "ranks count from 1"),
        (["loss.name", "mgn"], "the objective of the models mgn"),
        (["loss.name", "triplet"], "set sampler.train_sampler RandomIdentitySampler instead of RandomSampler"),
        (
            ["loss.name", "triplet", "sampler.train_sampler", "RandomIdentitySampler", "loss.triplet.weight_t", "0"],
            "at least 0, and one of them above",
        ),
        (
            ["loss.name", "triplet", "sampler.train_sampler", "RandomIdentitySampler", "train.fixbase_epoch", "1"],
            "excludes from the loss",
        ),
        (["train.stepsize", "[]"], "epochs count from 1"),
        (["train.stepsize", "[0]"], r"train.stepsize is \[0\]; allowed: from 1"),
        (["train.start_epoch", "-3"], "train.start_epoch is -3; allowed: from 0"),
        (["train.start_epoch", "5", "train.max_epoch", "5"], "train.start_epoch is 5 and train.max_epoch 5: no epoch"),
        (["data.norm_mean", "[0.5]"], "images have three channels"),
        (["data.height", "1"], "data.height is 1; allowed: from 16"),
        (["sampler.train_sampler_t", "Foo"], "sampler.train_sampler_t is 'Foo'"),
        (["data.load_train_targets", "True"], "choose others or set it to False"),
        (["eval.far", "1.0"], "eval.far is 1.0; allowed: above 0 to below 1"),
        (["eval.memory_mb", "0"], "eval.memory_mb is 0; allowed: from 1"),
        (["eval.precision", "half"], "eval.precision is 'half'"),
        (["data.k_tfm", "2"], "data.k_tfm is 2; allowed: 1"),
        (
            ["std.lambda", "1.2"],
            r"std.lambda is 1.2; allowed: from 0 to 1 \(weight of the distillation",
        ),
        (["std.lambda", "-0.1"], "std.lambda is -0.1"),
        (["loss.name", "std"], "needs a teacher: std.teacher, .*resnet50_ptl"),
        (["loss.name", "std", "std.teacher", "resnet50_ptl"], "needs the teacher's weights: std.teacher_weights"),
        ([*STD, "std.teacher", "resnet50_plt"], "std.teacher is 'resnet50_plt': did you mean 'resnet50_ptl'"),
        ([*STD, "std.cache", "True"], r"data.transforms is \['random_flip'\]: set it to \[\], or std.cache to False"),
        ([*STD, "std.projection", "mlp"], "std.projection is 'mlp'.*Allowed: none, linear"),
        ([*STD, "std.objective", "mgn"], "std.objective mgn is the objective of the models mgn"),
        ([*STD, "std.objective", "triplet"], "std.objective triplet compares .*RandomIdentitySampler"),
        ([*STD, "std.lambda", "1", "train.fixbase_epoch", "1"], "which std.lambda 1 excludes"),
        (["std.norm_std", "[1, 0, 1]"], r"std.norm_std is \[1, 0, 1\]; deviations are from 1e-06"),
        (["train.gamma", "-0.1"], "train.gamma is -0.1; allowed: from 0"),
        (["train.base_lr_mult", "-1"], "train.base_lr_mult is -1.0; allowed: from 0"),
        (["train.lr", "1e999"], "train.lr is inf; allowed: above 0 to 1000"),
        (["train.weight_decay", "1e999"], "train.weight_decay is inf"),
        (
            ["train.optim", "sgd", "sgd.nesterov", "True", "sgd.momentum", "0"],
            "sgd.nesterov needs sgd.momentum above 0 and sgd.dampening 0; they are 0.0 and 0.0",
        ),
        (["train.fixbase_epoch", "1", "train.open_layers", "[]"], r"train.open_layers \[\]: nothing learns"),
        (["data.root", "a\0b"], r"data.root is 'a.x00b'; no name or path is like that"),
        (["train.seed", "-1"], "train.seed is -1; allowed: from 0 to 4294967295"),
        (["train.seed", "4294967296"], "train.seed is 4294967296"),
        (["data.workers", "2000"], "data.workers is 2000; allowed: from 0 to 1024"),
        (["data.norm_std", "[0, 0, 0]"], "data.norm_std is .*; allowed: from 1e-06"),
        (["std.height", "1"], "std.height is 1; allowed: 0, or from 16"),
        (["compat.old_width", "15"], "compat.old_width is 15; allowed: 0, or from 16"),
        (["compat.old_norm_std", "[1e-9, 1, 1]"], "compat.old_norm_std is .*; deviations are from 1e-06"),
        (["model.load_weights", "x" * 300], "model.load_weights is 'xxx.*300|302.*; no name or path is like that"),
        (["std.height", "-1"], "std.height is -1; allowed: from 0"),
        (
            ["loss.name", "cluster", "loss.cluster.eps", "1"],
            "loss.cluster.eps is 1.0; allowed: above 0 to below 1",
        ),
        (["loss.name", "cluster", "loss.cluster.eps", "0"], "loss.cluster.eps is 0.0"),
        (["loss.name", "cluster", "loss.cluster.temperature", "0"], "loss.cluster.temperature is 0.0"),
        (
            ["loss.name", "cluster", "loss.cluster.momentum", "1.0"],
            "loss.cluster.momentum is 1.0; allowed: from 0 to below",
        ),
        (["loss.cluster.min_samples", "0"], "loss.cluster.min_samples is 0; allowed: from 1"),
        (["loss.cluster.k2", "0"], "loss.cluster.k2 is 0; allowed: from 1"),
        (["loss.name", "cluster", "train.fixbase_epoch", "1"], "which loss.name cluster does not use; set it to 0"),
        (["loss.name", "cluster", "train.lr_scheduler", "one_cycle"], "choose cosine, multi_step or single_step"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_built(options, message):
    with pytest.raises(ConfigError, match=message):
        validate(load_config(None, options))


def test_the_dump_is_the_same_configuration(tmp_path):
    config = load_config(CONFIGS / "ptl_mgn.yaml", ["train.lr", "0.5"])
    (tmp_path / "config.yaml").write_text(config.dump())
    assert to_dict(load_config(tmp_path / "config.yaml")) == to_dict(config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ptl_densenet161", {"train.optim": "sgd", "train.lr": 0.01, "train.max_epoch": 50, "train.batch_size": 32,
                             "train.stepsize": [10], "data.height": 256, "loss.name": "softmax",
                             "ptl.start": "random"}),
        ("ptl_mgn", {"train.optim": "amsgrad", "train.lr": 2e-4, "train.max_epoch": 450, "train.batch_size": 16,
                     "train.stepsize": [320, 360, 400], "data.height": 384, "loss.mgn.margin": 1.2, "eval.flip": True,
                     "train.weight_decay": 5e-4}),
    ],
)  # fmt: skip
def test_settings_of_the_paper_and_the_code(name, expected):
    config = load_config(CONFIGS / f"{name}.yaml")
    assert {key: get(config, key) for key in expected} == expected


@pytest.mark.parametrize("text", ["[bct, rbcl]", "['bct', 'rbcl']", "('bct', 'rbcl')", "'bct', 'rbcl'"])
def test_lists_on_the_command_line_need_no_quotes_within(text):
    assert load_config(None, ["compat.losses", text]).compat.losses == ["bct", "rbcl"]


@pytest.mark.parametrize("text", ["bct", "[bct", "[1, 2]", "[bct: 1]"])
def test_what_is_no_list_of_texts_is_refused(text):
    with pytest.raises(ConfigError, match="expected a list of strings such as"):
        load_config(None, ["compat.losses", text])


def test_every_number_has_a_range_and_its_default_is_in_it():
    for key, setting in SETTINGS.items():
        assert setting.allows(setting.default), key
        number = any(word in setting.kind for word in ("number", "integer"))
        if number and not re.fullmatch(r"compat\.\w+\.\w+", key):  # those of a loss are checked by its constructor
            assert None not in (setting.least, setting.most), key


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan"])
def test_numbers_are_finite(tmp_path, text):
    for key, setting in SETTINGS.items():
        if isinstance(setting.default, float):
            *sections, name = key.split(".")
            (tmp_path / "bad.yaml").write_text(
                "".join(f"{{{s}: " for s in (*sections, name)) + text + "}" * key.count(".") + "}"
            )
            with pytest.raises(ConfigError, match=f"{key} is -?(inf|nan); allowed: "):
                validate(load_config(tmp_path / "bad.yaml"))
