"""Batch-hard triplet loss."""

import pytest
import torch
import torchreid

from torchreid_ptl.losses import BatchHardTripletLoss, batch_hard_triplet_loss

PIDS = torch.tensor([0, 0, 1, 1, 2, 2])


def oracle(features, pids, margin):
    """Loops over anchors and pairs."""
    total, counted = 0.0, 0
    for a in range(len(pids)):
        distances = [(features[a] - features[j]).norm().item() for j in range(len(pids))]
        positives = [d for j, d in enumerate(distances) if pids[j] == pids[a]]
        negatives = [d for j, d in enumerate(distances) if pids[j] != pids[a]]
        if negatives:
            total += max(0.0, margin + max(positives) - min(negatives))
            counted += 1
    return total / max(counted, 1)


@pytest.mark.parametrize("pids", [PIDS, torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([0, 0, 0, 0, 0, 1])])
@pytest.mark.parametrize("margin", [0.3, 1.2])
def test_equals_the_oracle(pids, margin):
    features = torch.randn(6, 8)
    assert batch_hard_triplet_loss(features, pids, margin).item() == pytest.approx(
        oracle(features, pids, margin), rel=1e-5
    )


def test_equals_the_hosts():
    features = torch.randn(6, 16)
    torch.testing.assert_close(
        BatchHardTripletLoss(0.3)(features, PIDS), torchreid.losses.TripletLoss(0.3)(features, PIDS)
    )


def test_order_of_the_batch_does_not_matter():
    features, order = torch.randn(6, 8), torch.randperm(6)
    torch.testing.assert_close(
        batch_hard_triplet_loss(features, PIDS), batch_hard_triplet_loss(features[order], PIDS[order])
    )


@pytest.mark.parametrize("count", [1, 4])
def test_a_single_identity_gives_zero_and_a_gradient(count):
    features = torch.randn(count, 8, requires_grad=True)
    loss = batch_hard_triplet_loss(features, torch.zeros(count, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros_like(features))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    features = (100 * torch.randn(6, 256)).to(dtype).requires_grad_()  # squared sums overflow float16
    loss = batch_hard_triplet_loss(features, PIDS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(features.detach().float(), PIDS, 0.3), rel=1e-3)
    assert torch.isfinite(features.grad).all()


def test_under_autocast():
    features = torch.randn(6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = batch_hard_triplet_loss(features, PIDS)
    assert torch.equal(inside, batch_hard_triplet_loss(features, PIDS))


def test_gradient():
    features = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: batch_hard_triplet_loss(x, PIDS, 2.0), features)


def test_equal_features_have_a_finite_gradient():
    features = torch.ones(4, 3, requires_grad=True)
    batch_hard_triplet_loss(features, torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(features.grad).all()


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"got \(4, 3\) and \(3,\)"):
        batch_hard_triplet_loss(torch.ones(4, 3), torch.ones(3))
