"""Contrastive losses against old features: plain and RACT."""

import math

import pytest
import torch

from torchreid_ptl.losses import OldNewContrastiveLoss, RACTLoss, contrastive_loss, ract_loss


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def oracle(new, old, pids, tau, negatives, with_new):
    """Plain loops: sorts the negatives of each image."""
    new, old, pids, total = new.tolist(), old.tolist(), pids.tolist(), 0.0
    for i, f in enumerate(new):
        others = [j for j in range(len(new)) if pids[j] != pids[i]]
        against = [cosine(f, old[j]) for j in others]
        if with_new:
            against += [cosine(f, new[j]) for j in others]
        against = sorted(against, reverse=True)[: negatives or None]
        logits = [x / tau for x in [cosine(f, old[i]), *against]]
        largest = max(logits)
        total += largest + math.log(sum(math.exp(x - largest) for x in logits)) - logits[0]
    return total / len(new)


PIDS = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])


def batch():
    return torch.randn(8, 6, dtype=torch.float64), torch.randn(8, 6, dtype=torch.float64), PIDS


@pytest.mark.parametrize("negatives", [1, 4, 10, 0])
@pytest.mark.parametrize("tau", [0.01, 0.5])
def test_equals_the_oracle(tau, negatives):
    given = batch()
    value = contrastive_loss(*given, tau, negatives)
    assert value.item() == pytest.approx(oracle(*given, tau, negatives, with_new=False), rel=1e-9)
    assert torch.equal(OldNewContrastiveLoss(tau, negatives)(*given), value)
    value = ract_loss(*given, tau, negatives)
    assert value.item() == pytest.approx(oracle(*given, tau, negatives, with_new=True), rel=1e-9)
    assert torch.equal(RACTLoss(tau, negatives)(*given), value)


@pytest.mark.parametrize("function", [contrastive_loss, ract_loss])
def test_gradient(function):
    new, old, pids = batch()
    assert torch.autograd.gradcheck(lambda x: function(x, old, pids, 0.3, 4), new.requires_grad_())


@pytest.mark.parametrize("function", [contrastive_loss, ract_loss])
@pytest.mark.parametrize("size", [1, 4])
def test_without_another_identity_nothing_is_paid(function, size):
    new = torch.randn(size, 6, requires_grad=True)
    loss = function(new, torch.randn(size, 6), torch.zeros(size))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(new.grad, torch.zeros_like(new))


def test_ract_counts_new_negatives_too():
    given = batch()
    assert ract_loss(*given, negatives=0) > contrastive_loss(*given, negatives=0)


@pytest.mark.parametrize("module", [OldNewContrastiveLoss, RACTLoss])
def test_settings_out_of_range(module):
    with pytest.raises(ValueError, match="tau is 0"):
        module(tau=0)
    with pytest.raises(ValueError, match="negatives is -1.*0 for all"):
        module(negatives=-1)
