"""Distance to the old feature."""

import math

import pytest
import torch

from torchreid_ptl.losses import FeatureL2Loss, l2_loss

PIDS = torch.arange(5)


def oracle(new, old, t):
    """Plain loops over images and dimensions."""
    total = 0.0
    for f, o in zip(new.tolist(), old.tolist(), strict=True):
        norm_f, norm_o = (math.sqrt(sum(x * x for x in row)) for row in (f, o))
        distance = math.sqrt(sum((a / norm_f - b / norm_o) ** 2 for a, b in zip(f, o, strict=True)))
        total += max(distance - t, 0.0)
    return total / len(new)


@pytest.mark.parametrize("t", [0.0, 0.2, 1.4])
def test_equals_the_oracle(t):
    new, old = torch.randn(5, 8, dtype=torch.float64), 9 * torch.randn(5, 8, dtype=torch.float64)
    assert l2_loss(new, old, t).item() == pytest.approx(oracle(new, old, t), rel=1e-12)
    assert torch.equal(FeatureL2Loss(t)(new, old, PIDS), l2_loss(new, old, t))


def test_gradient():
    new, old = torch.randn(5, 6, dtype=torch.float64, requires_grad=True), torch.randn(5, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: l2_loss(x, old, 0.2), new)


def test_within_the_distance_nothing_is_paid():
    old = torch.randn(5, 64)
    new = (old + 0.01 * torch.randn(5, 64)).requires_grad_()
    loss = l2_loss(new, old, 0.2)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(new.grad, torch.zeros_like(new))


def test_equal_features_have_a_finite_gradient():
    old = torch.randn(5, 8)
    new = (2 * old).requires_grad_()
    l2_loss(new, old).backward()
    assert torch.isfinite(new.grad).all()


def test_the_weight_of_the_source():
    assert FeatureL2Loss.weight == 10


@pytest.mark.parametrize("t", [-0.1, 2.0, float("nan")])
def test_t_out_of_its_range(t):
    with pytest.raises(ValueError, match="t is .*from 0 to below 2"):
        l2_loss(torch.ones(2, 3), torch.ones(2, 3), t)
    with pytest.raises(ValueError, match="t is"):
        FeatureL2Loss(t)
