"""Boundary of an identity in the old space, and the hinge at it."""

import math

import pytest
import torch

from torchreid_ptl.losses import boundary_loss, old_radii


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def radii_by_loops(gallery, gallery_pids, means, pids, elasticity):
    radii = []
    for pid in pids.tolist():
        distances = [
            1 - cosine(row, means[pid].tolist())
            for row, p in zip(gallery.tolist(), gallery_pids.tolist(), strict=True)
            if p == pid
        ]
        known = distances and math.isfinite(means[pid].sum())
        mean = sum(distances) / len(distances) if known else 0
        radii.append(mean + elasticity * (max(distances) - mean) if known else math.inf)
    return radii


def hinge_by_loops(new, pids, means, radii):
    total, counted = 0.0, 0
    for f, pid, radius in zip(new.tolist(), pids.tolist(), radii, strict=True):
        if math.isfinite(radius) and math.isfinite(means[pid].sum()):
            total += max(1 - cosine(f, means[pid].tolist()) - radius, 0.0)
            counted += 1
    return total / counted if counted else 0.0


def batch():
    """Identity 3 has no old feature in the gallery, identity 4 no mean."""
    means = torch.randn(6, 5, dtype=torch.float64)
    means[4] = float("nan")
    gallery_pids = torch.tensor([0, 1, 2, 4, 5])[torch.randint(5, (40,))]
    return (
        torch.randn(7, 5, dtype=torch.float64),
        torch.tensor([5, 0, 3, 4, 1, 1, 0]),
        means,
        torch.randn(40, 5, dtype=torch.float64),
        gallery_pids,
    )


@pytest.mark.parametrize("elasticity", [0.0, 0.5, 1.0])
def test_equals_the_loops(elasticity):
    new, pids, means, gallery, gallery_pids = batch()
    radii = old_radii(gallery, gallery_pids, means, pids, elasticity)
    expected = radii_by_loops(gallery, gallery_pids, means, pids, elasticity)
    assert radii.tolist() == pytest.approx(expected, rel=1e-12)
    assert expected[2] == expected[3] == math.inf
    radii, tight = radii - 0.7, [radius - 0.7 for radius in expected]
    assert boundary_loss(new, pids, means, radii).item() == pytest.approx(hinge_by_loops(new, pids, means, tight))
    assert hinge_by_loops(new, pids, means, tight) > 0


def test_gradient():
    new, pids, means, gallery, gallery_pids = batch()
    radii = old_radii(gallery, gallery_pids, means, pids) - 0.7
    assert torch.autograd.gradcheck(lambda x: boundary_loss(x, pids, means, radii), new.requires_grad_())


def test_inside_nothing_is_paid():
    _, pids, means, gallery, gallery_pids = batch()
    new = means[pids].nan_to_num(1.0).requires_grad_()
    loss = boundary_loss(new, pids, means, old_radii(gallery, gallery_pids, means, pids))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(new.grad, torch.zeros_like(new))


def test_identities_without_old_features_cost_nothing():
    new = torch.randn(3, 5, requires_grad=True)
    means = torch.full((6, 5), float("nan"))
    pids = torch.tensor([0, 1, 1])
    loss = boundary_loss(new, pids, means, old_radii(torch.randn(4, 5), torch.full((4,), 3), means, pids))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(new.grad, torch.zeros_like(new))


def test_errors():
    new, pids, means, gallery, gallery_pids = batch()
    with pytest.raises(ValueError, match="elasticity is 1.5"):
        old_radii(gallery, gallery_pids, means, pids, 1.5)
    with pytest.raises(ValueError, match=r"gallery_pids \(G,\).*\(39,\)"):
        old_radii(gallery, gallery_pids[:39], means, pids)
    gallery[0, 0] = float("nan")
    with pytest.raises(ValueError, match="of the gallery are not finite"):
        old_radii(gallery, gallery_pids, means, gallery_pids[:1])
    with pytest.raises(ValueError, match="embedding head of 5"):
        boundary_loss(new[:, :4], pids, means, torch.ones(7))
    with pytest.raises(ValueError, match=r"radii \(B,\)"):
        boundary_loss(new, pids, means, torch.ones(6))
