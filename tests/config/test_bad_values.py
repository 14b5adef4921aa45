"""Every key with values of wrong kinds and numbers out of range, and command lines that are not pairs."""

import datetime
import math

import pytest

from torchreid_ptl.cli.main import main
from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import ConfigError, build_config, get
from torchreid_ptl.config.settings import SETTINGS
from torchreid_ptl.losses import registered_losses

BAD = (
    None, "", "abc", "1e-3", "nan", "-inf", "None", "[", "a\0b", "\ud800", [], [1], ["a"], [math.nan], [None], [[1]],
    [[]], {}, {"x": 1}, True, -1, 0, 1, 2, 1.5, -0.5, 1e12, 10**30, -(10**400), math.nan, math.inf, -math.inf,
    1e-320, 3 + 4j, datetime.date(2020, 1, 1), b"bytes", {1, 2}, (1, 2),
)  # fmt: skip
COMPATIBLE = [("loss.name", "compatible", ""), ("compat.old", "resnet50", ""), ("compat.old_weights", "old.pth", "")]


def objectives_of(key):
    """What makes a key count: the losses of ``compat.*`` are built only if they are asked for."""
    section = key.split(".")[1] if key.startswith("compat.") else ""
    if section in registered_losses():
        return [*COMPATIBLE, ("compat.losses", [section], "")]
    return [*COMPATIBLE] if key.startswith("compat.") else []


def numbers_of(value):
    if isinstance(value, list):
        return [number for item in value for number in numbers_of(item)]
    return [value] if isinstance(value, int | float) else []


def answer(key, value):
    """The message of the refusal, or None for a value that is accepted."""
    try:
        config = build_config([*objectives_of(key), (key, value, "own.yaml")])
        validate(config)
    except ConfigError as error:
        return str(error)
    taken = get(config, key)
    assert isinstance(taken, type(SETTINGS[key].default)), f"{key} {value!r} was taken as {taken!r}"
    assert all(math.isfinite(number) for number in numbers_of(taken)), f"{key} {value!r} was accepted"
    assert SETTINGS[key].allows(taken)
    return None


@pytest.mark.parametrize("key", SETTINGS)
def test_a_wrong_value_is_answered_with_its_key(key):
    for value in BAD:
        said = answer(key, value)
        assert said is None or key in said or key.rpartition(".")[2] in said, f"{key} {value!r}: {said}"
        if said is not None:
            assert len(said) < 3000, f"{key} {value!r}: {said}"


@pytest.mark.parametrize(
    "key", [key for key, setting in SETTINGS.items() if isinstance(setting.default, int | float) and key != "use_gpu"]
)
def test_no_number_is_without_bounds(key):
    """A bool has two values; any other number beyond all sense is refused."""
    if isinstance(SETTINGS[key].default, bool):
        assert answer(key, 2) is not None
        return
    assert answer(key, 10**12) is not None
    assert answer(key, -(10**12)) is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.lr"], "Options come in pairs KEY VALUE; 'train.lr' has no value"),
        (["train.lrr", "1"], "Unknown key 'train.lrr' in the command line: did you mean 'train.lr'?"),
        (["train", "1"], "unrecognized arguments: train 1"),
        (["train.optim", "--resume"], "train.optim is '--resume': Allowed: "),
        (["train.lr", "0.1", "0.2"], "unrecognized arguments: 0.2"),
        (["train.stepsize", "[10"], "train.stepsize in the command line is '[10' (str); expected a list of integers"),
        (
            ["train.optim", "sgd", "sgd.nesterov", "True", "sgd.momentum", "0"],
            "sgd.nesterov needs sgd.momentum above 0",
        ),
    ],
    ids=range(7),
)
def test_a_command_line_of_odd_words_is_answered(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["train", "--root", str(tmp_path), *words])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert said in error
    assert "Traceback" not in error
