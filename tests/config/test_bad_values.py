"""Every key with values of every kind: sane ones are accepted, others are refused by a message with the key."""

import datetime
import math

import pytest
import torch

from torchreid_ptl.build.networks import build_network
from torchreid_ptl.build.training import build_datamanager, build_engine
from torchreid_ptl.build.training import test_options as evaluation_fields
from torchreid_ptl.cli.arguments import EXPECTED
from torchreid_ptl.cli.main import main
from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import ConfigError, build_config, flatten, read_options, to_dict
from torchreid_ptl.config.settings import SETTINGS
from torchreid_ptl.config.words import in_keys
from torchreid_ptl.evaluation import EvaluationOptions
from torchreid_ptl.losses import registered_losses
from torchreid_ptl.runs.places import check_places

ORIGIN = "the test"
NUMBERS = [-1, 0, 1, 10**12, 10**30, 10**400, 1 << 20000, 1e12, 1.5, 1e-300, math.nan, math.inf, -math.inf]
VALUES = [
    None, True, "", "abc", "a\0b", "~", "\n", "/no/such/path", "x" * 5000, "\ud800",
    *NUMBERS,
    [], {}, [[]], [1], ["a", 1], ("a",), set(), b"x", 1 + 2j, object(), datetime.date(2020, 1, 1), [None],
    *([number] * 3 for number in NUMBERS),
    "1e-3", "1e12", "nan", "inf", "1e999", "[nan, 1, 1]", "[.nan, 1, 1]", "True", "None", "[", "(", "{}", "{[]: 1}",
    "0x" + "f" * 6000, "9" * 5000, "[" * 300,
]  # fmt: skip
MOST_CHARACTERS = 700
NAMES = {"model.name", "std.teacher", "compat.old", "data.sources", "data.targets"}
"""Keys whose messages list all names there are."""
OBJECTIVES = {
    "compat": {"loss.name": "compatible", "compat.old": "resnet50", "compat.old_weights": "old.pth"},
    "std": {"loss.name": "std", "std.teacher": "resnet50_ptl", "std.teacher_weights": "teacher.pth"},
    "loss.triplet": {"loss.name": "triplet", "sampler.train_sampler": "RandomIdentitySampler"},
    "loss.mgn": {"loss.name": "mgn", "model.name": "mgn", "sampler.train_sampler": "RandomIdentitySampler"},
    "loss.margin_softmax": {"loss.name": "margin_softmax"},
    "loss.cluster": {"loss.name": "cluster"},
    "train.stepsize": {"train.lr_scheduler": "multi_step"},
    "train.open_layers": {"train.fixbase_epoch": 1},
    "train.new_layers": {"train.staged_lr": True},
    "train.base_lr_mult": {"train.staged_lr": True},
    "sampler.num_instances": {"sampler.train_sampler": "RandomIdentitySampler"},
    "sampler.num_cams": {"sampler.train_sampler": "RandomDomainSampler"},
    "sampler.num_datasets": {"sampler.train_sampler": "RandomDatasetSampler"},
    "sgd": {"train.optim": "sgd"},
    "rmsprop": {"train.optim": "rmsprop"},
}
"""Settings with which a key, or the keys of a section, count."""


def around(key):
    """Entries with which a key counts."""
    settings = next((dict(each) for section, each in OBJECTIVES.items() if f"{key}.".startswith(f"{section}.")), {})
    if key.startswith("compat.") and key.split(".")[1] in registered_losses():
        settings["compat.losses"] = [key.split(".")[1]]
    return [(name, value, ORIGIN) for name, value in settings.items()]


def tried(key, value):
    """The configuration with a value; the message where it is refused."""
    try:
        config = build_config([*around(key), (key, value, ORIGIN)])
        validate(config)
    except ConfigError as error:
        return None, str(error)
    return config, ""


@pytest.mark.parametrize("key", SETTINGS)
def test_a_value_is_sane_or_refused_by_its_key(key):
    for value in VALUES:
        config, message = tried(key, value)
        if config is None:
            assert key in message
            assert len(message) < MOST_CHARACTERS or key in NAMES
            continue
        for name, setting in SETTINGS.items():
            found = dict(flatten(to_dict(config)))[name]
            assert setting.allows(found)
            assert type(found) is type(setting.default)


def test_numbers_are_checked_where_they_do_not_count_too():
    for key, setting in SETTINGS.items():
        if setting.range:
            for wrong in (math.nan, math.inf, -1e12):
                value = [wrong] * 3 if isinstance(setting.default, list) else wrong
                with pytest.raises(ConfigError, match=key):
                    validate(build_config([(key, value, ORIGIN)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.lr"], "'train.lr' has no value"),
        (["train.lr", "0.1", "train.seed"], "'train.seed' has no value"),
        (["train", "5"], "'train' in the command line: it is a section with the keys train.optim"),
        (["compat.rbcl", "5"], "'compat.rbcl' in the command line: it is a section with the keys compat.rbcl.weight"),
        (["", "5"], "Unknown key ''"),
        (["train.", "5"], "Unknown key 'train.'"),
        (["train.lr.x", "5"], "Unknown key 'train.lr.x' in the command line: did you mean 'train.lr'"),
        (["TRAIN.LR", "5"], "Unknown key 'TRAIN.LR'"),
        (["x" * 5000, "5"], "Unknown key"),
        (["train.lr", "--resume"], "train.lr in the command line is '--resume'"),
    ],
)
def test_options_that_are_no_pairs_of_key_and_value(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_config(read_options(options))
    assert len(str(caught.value)) < 2000


def test_the_last_of_a_key_given_twice_wins():
    assert build_config(read_options(["train.lr", "0.1", "train.lr", "0.2"])).train.lr == 0.2


@pytest.fixture(scope="module")
def assembled(tmp_path_factory, tiny_root):
    """Builds all that a training needs, up to its first step; an error is one of those that a command prints."""
    folder = tmp_path_factory.mktemp("assembly")
    networks = {}
    for name in ("osnet_x0_25", "osnet_x0_25_ptl"):
        networks[name] = folder / f"{name}.pth"
        torch.save(build_network(name, use_gpu=False, size=(64, 32)).state_dict(), networks[name])
    small = {
        "model.name": "osnet_x0_25", "model.pretrained": False, "use_gpu": False, "data.root": str(tiny_root),
        "data.sources": ["drawn_pedestrians_tiny"], "data.targets": ["drawn_pedestrians_tiny"], "data.height": 64,
        "data.width": 32, "data.workers": 0, "data.save_dir": str(folder / "log"), "train.batch_size": 4,
        "sampler.num_instances": 2,
    }  # fmt: skip
    frozen = {
        "compat.old": "osnet_x0_25", "compat.old_weights": str(networks["osnet_x0_25"]),
        "std.teacher": "osnet_x0_25_ptl", "std.teacher_weights": str(networks["osnet_x0_25_ptl"]),
    }  # fmt: skip

    def build(key, value):
        settings = {**small, **{name: frozen.get(name, each) for name, each, _ in around(key)}}
        if settings["model.name"] == "mgn":
            settings |= {"data.height": 96, "data.width": 64}
        config = build_config([*((name, each, ORIGIN) for name, each in settings.items()), (key, value, ORIGIN)])
        validate(config)
        check_places(config)
        manager = build_datamanager(config)
        build_engine(config, manager)
        EvaluationOptions.of(**evaluation_fields(config))

    return build


def outcome(assembled, key, value):
    """What building gives: nothing, or the message that a command prints."""
    try:
        assembled(key, value)
    except EXPECTED as error:
        return in_keys(error)
    return ""


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.new_layers", [], ""),
        ("train.new_layers", ["a"], "train.new_layers names 'a', which is no child of the model"),
        ("train.open_layers", ["a"], "train.open_layers names 'a', which is no child of the model"),
        ("train.batch_size", 10**6, "train.batch_size"),
        ("sampler.num_instances", 4096, "sampler.num_instances"),
        ("sampler.num_cams", 4096, "sampler.num_cams"),
        ("sampler.num_datasets", 4096, "sampler.num_datasets"),
        ("model.load_weights", "/no/such/path", "model.load_weights names /no/such/path, which does not exist"),
        ("sgd.momentum", 0, ""),
        ("train.gamma", 0, ""),
    ],
)
def test_what_is_accepted_is_built_or_refused_in_words(assembled, key, value, said):
    found = outcome(assembled, key, value)
    assert said in found
    assert bool(said) == bool(found)


@pytest.mark.slow
@pytest.mark.parametrize("key", SETTINGS)
def test_all_that_is_accepted_is_built_or_refused_in_words(assembled, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = [value for value in VALUES if tried(key, value)[0] is not None]
    for value in values[:3]:
        if not (key == "data.save_dir" and str(value).startswith(("/", "~"))):  # not to be made on this machine
            outcome(assembled, key, value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.lr"], "Options come in pairs KEY VALUE; 'train.lr' has no value"),
        (["train.lrr", "1"], "Unknown key 'train.lrr' in the command line: did you mean 'train.lr'?"),
        (["train", "1"], "unrecognized arguments: train 1"),
        (["train.optim", "--resume"], "train.optim is '--resume': Allowed: "),
        (["train.lr", "0.1", "0.2"], "unrecognized arguments: 0.2"),
        (["train.lr=0.1"], "train.lr=0.1: a key and its value are two words: train.lr 0.1"),
        (
            ["-t", "market1501", "trian.lr", "0.1"],
            "Unknown key 'trian.lr' in the command line: did you mean 'train.lr'?",
        ),
        (["-t", "viper", "viper"], "data.targets are viper, viper: viper is named twice. Name it once"),
        (["train.stepsize", "[10"], "train.stepsize in the command line is '[10' (str); expected a list of integers"),
        (["--root"], "argument --root: expected one argument"),
        (["-s"], "argument -s/--sources: expected at least one argument"),
    ],
)
def test_a_command_line_of_odd_words_is_answered(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["train", *words])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert said in error
    assert "Traceback" not in error
