"""Keys that derive from constructors."""

import inspect
from typing import Literal

import pytest

from torchreid_ptl import losses
from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import ConfigError, load_config
from torchreid_ptl.config.loss_settings import loss_arguments
from torchreid_ptl.config.settings import SETTINGS
from torchreid_ptl.engines import (
    ClusterObjective,
    ImageCompatibleEngine,
    ImageMGNEngine,
    ImageSTDEngine,
    MarginSoftmaxObjective,
    MGNObjective,
    SoftmaxObjective,
    STDObjective,
    TripletObjective,
)
from torchreid_ptl.losses import registry

OLD = ["loss.name", "compatible", "compat.old", "resnet50", "compat.old_weights", "a.pth"]


def section(name):
    start = f"compat.{name}."
    return {key.removeprefix(start): setting for key, setting in SETTINGS.items() if key.startswith(start)}


@pytest.mark.parametrize("name", losses.registered_losses())
def test_the_defaults_of_python_and_yaml_are_one(name):
    """Also for a loss without arguments, whose constructor is called with its section."""
    loss = losses.registered_losses()[name]
    found = section(name)
    assert found.pop("weight").default == loss.weight
    parameters = {key.removesuffix("_"): item.default for key, item in inspect.signature(loss).parameters.items()}
    assert {key: setting.default for key, setting in found.items()}.items() <= parameters.items()
    assert all(setting.help and "`" not in setting.help for setting in found.values())
    supplied = {"dim": 3, "num_classes": 2, "seed": 5}
    built = losses.build_loss(name, loss_arguments(load_config().compat[name]), **supplied)
    plain = losses.build_loss(name, **supplied)
    values = [{key: v for key, v in vars(item).items() if isinstance(v, (str, int, float))} for item in (built, plain)]
    assert values[0] == values[1]


def test_the_values_that_were_chosen_for_re_id():
    values = {f"{name}.{key}": s.default for name in ("rbcl", "mixbct", "bct") for key, s in section(name).items()}
    chosen = {"rbcl.weight": 5.0, "rbcl.gallery": "full", "mixbct.scale": 30.0, "mixbct.margin": 0.3}
    assert values.items() >= {**chosen, "bct.prototypes": "auto"}.items()
    assert section("rbcl")["gallery"].choices == ("batch", "nca", "full")
    assert {"tau", "negatives"} <= section("ract").keys() & section("contrastive").keys()


@pytest.mark.parametrize(
    ("key", "objective"),
    [
        ("loss.softmax", SoftmaxObjective),
        ("loss.softmax", ImageSTDEngine),
        ("loss.softmax", ImageCompatibleEngine),
        ("loss.triplet", TripletObjective),
        ("loss.mgn", MGNObjective),
        ("loss.mgn", ImageMGNEngine),
        ("loss.margin_softmax", MarginSoftmaxObjective),
        ("loss.cluster", ClusterObjective),
        ("std", STDObjective),
        ("std", ImageSTDEngine),
        ("std", losses.STDLoss),
    ],
)
def test_the_defaults_of_objectives_and_yaml_are_one(key, objective):
    parameters = inspect.signature(objective).parameters
    shared = 0
    for name, setting in SETTINGS.items():
        _, _, argument = name.rpartition(".")
        argument = {"lambda": "lambda_"}.get(argument, argument)
        plain = argument in parameters and type(parameters[argument].default) in (bool, int, float)
        if name.startswith(f"{key}.") and plain and not isinstance(setting.default, str):
            shared += 1
            assert parameters[argument].default == setting.default, name
    assert shared


def test_a_loss_of_the_users_own_is_usable_from_yaml_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_CLASSES", losses.registered_losses())
    before = list(SETTINGS)

    @losses.register_loss("cosine")
    class Cosine(losses.CompatibleLoss):
        """One minus the cosine.

        Args:
            dim: D.
            power: exponent of the ``cosine``,
                whatever it is.
            kind: of mean.
            lambda_: share.
        """

        weight = 2

        def __init__(self, dim, power: int = 1, kind: Literal["plain", "hard"] = "plain", lambda_: float = 0.5):
            super().__init__()
            if power < 1:
                raise ValueError(f"power is {power}; 1 or more")
            self.settings = (dim, power, kind, lambda_)

    new = [key for key in SETTINGS if key not in before]
    assert new == [f"compat.cosine.{key}" for key in ("weight", "power", "kind", "lambda")]
    assert len(SETTINGS) == len(before) + 4
    assert SETTINGS["compat.cosine.power"].help == "exponent of the cosine"
    assert "cosine" in SETTINGS["compat.losses"].choices
    path = tmp_path / "run.yaml"
    path.write_text("compat:\n  losses: [cosine]\n  cosine: {power: 3, lambda: 0.25}\n")
    config = load_config(path, OLD)
    validate(config)
    assert config.compat.cosine.weight == 2.0
    built = losses.build_loss("cosine", loss_arguments(config.compat.cosine), dim=7, seed=1)
    assert built.settings == (7, 3, "plain", 0.25)
    for key, value, message in (
        ("power", "0", r"compat\.cosine: power is 0; 1 or more"),
        ("kind", "soft", r"compat\.cosine\.kind is 'soft'.*plain, hard"),
        ("weight", "-1", r"compat\.cosine\.weight is -1\.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(load_config(path, [*OLD, f"compat.cosine.{key}", value]))
