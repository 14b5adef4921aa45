"""Losses by name."""

import pytest

import torchreid_ptl
from torchreid_ptl import losses
from torchreid_ptl.losses import CompatibleLoss, registry


@pytest.fixture
def _registry(monkeypatch):
    monkeypatch.setattr(registry, "_CLASSES", losses.registered_losses())


@pytest.mark.usefixtures("_registry")
def test_a_loss_of_the_users_own():
    @torchreid_ptl.register_loss("cosine")
    class Cosine(CompatibleLoss):
        def __init__(self, dim, factor=2.0):
            super().__init__()
            self.dim, self.factor = dim, factor

    assert Cosine.name == "cosine"
    assert list(losses.registered_losses())[-1] == "cosine"
    built = losses.build_loss("cosine", {"factor": 3.0}, dim=8, num_classes=4, seed=1)
    assert (type(built), built.dim, built.factor) == (Cosine, 8, 3.0)


def test_a_name_belongs_to_one_class():
    with pytest.raises(ValueError, match=r"'rbcl' is already torchreid_ptl\.losses\.rbcl\.RBCLLoss; .*\.Other cannot"):

        @losses.register_loss("rbcl")
        class Other(CompatibleLoss):
            pass

    losses.register_loss("rbcl")(losses.RBCLLoss)  # the same class again
    assert losses.registered_losses()["rbcl"] is losses.RBCLLoss


@pytest.mark.parametrize("name", ["", "RBCL", "2rbcl", "rb-cl", "rbcl.full"])
def test_a_name_is_a_lowercase_identifier(name):
    with pytest.raises(ValueError, match="lowercase identifier"):
        losses.register_loss(name)


def test_only_compatible_losses_are_registered():
    with pytest.raises(ValueError, match="only subclasses of CompatibleLoss"):
        losses.register_loss("function")(losses.l2_loss)


def test_an_unknown_name_is_an_error_with_the_nearest():
    with pytest.raises(ValueError, match="no loss 'rbc': did you mean 'rbcl'.*mixbct"):
        losses.build_loss("rbc")
