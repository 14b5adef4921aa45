"""Numbers of losses and objectives: out of their range they are refused, by the name of the argument."""

import inspect
import math

import pytest

from torchreid_ptl import losses
from torchreid_ptl.engines import ClusterObjective, MarginSoftmaxObjective, MGNObjective, TripletObjective
from torchreid_ptl.losses import BatchHardTripletLoss, STDLoss, build_loss, registered_losses
from torchreid_ptl.runtime.errors import ArgumentError
from torchreid_ptl.runtime.ranges import Open, Range, shown

SUPPLIED = {"dim": 4, "num_classes": 3, "seed": 0}
WRONG = [math.nan, math.inf, -math.inf, -1e9, 1e30, 10**400, "0.1", True, None, [1]]


def numbers_of(built):
    """Names of the arguments of a constructor that are numbers by default."""
    parameters = inspect.signature(built).parameters.values()
    return [each.name for each in parameters if type(each.default) in (int, float) and each.name not in SUPPLIED]


@pytest.mark.parametrize("value", WRONG, ids=[str(number) for number in range(len(WRONG))])
@pytest.mark.parametrize("name", registered_losses())
def test_every_number_of_a_loss_has_a_range(name, value):
    for argument in numbers_of(registered_losses()[name]):
        if (argument, value) == ("scale", None):  # plain logits
            continue
        with pytest.raises(ArgumentError, match=f"^{argument} is .*; allowed: "):
            build_loss(name, {argument: value}, **SUPPLIED)


def test_every_number_of_a_loss_declares_its_range():
    for name, loss in registered_losses().items():
        assert set(numbers_of(loss)) <= set(loss.ranges), name


@pytest.mark.parametrize("value", WRONG, ids=[str(number) for number in range(len(WRONG))])
@pytest.mark.parametrize(
    ("built", "given"),
    [
        (STDLoss, {}),
        (BatchHardTripletLoss, {}),
        (TripletObjective, {}),
        (MGNObjective, {}),
        (MarginSoftmaxObjective, {"num_classes": 2, "dim": 2}),
        (ClusterObjective, {}),
    ],
)
def test_every_number_of_an_objective_has_a_range(built, given, value):
    for argument in numbers_of(built):
        if argument in ("k1", "k2", "min_samples") and value == 10**400:  # more than there are is all of them
            continue
        with pytest.raises(ArgumentError, match=f"^{argument} is .*; allowed: "):
            built(**given, **{argument: value})


@pytest.mark.parametrize(("argument", "value"), [("neighbours", 1.5), ("neighbours", 3.0)])
def test_whole_numbers(argument, value):
    with pytest.raises(ArgumentError, match=f"{argument} is {value}; allowed: whole numbers from 1"):
        losses.RBCLLoss(**{argument: value})


def test_ranges_in_words():
    assert str(Range(Open(0), 1)) == "above 0 to 1"
    assert str(Range(1, 1)) == "1"
    assert str(Range()) == ""
    assert Range().explain() == "numbers that are finite"


def test_values_are_shown_short():
    assert shown(1 << 20000) == "a int of 20001 bits" or len(shown(1 << 20000)) < 200
    assert len(shown("x" * 10**5)) < 200
    assert shown(0.1) == "0.1"
