"""Learning compatible embeddings."""

import math

import pytest
import torch

from torchreid_ptl.losses import LCELoss, boundary_loss, lce_loss, old_radii


def alignment_by_loops(classifier, means):
    """Mean squared difference of the normalised rows of identities with old features."""
    total, count = 0.0, 0
    for w, c in zip(classifier.tolist(), means.tolist(), strict=True):
        if all(math.isfinite(x) for x in c):
            norm_w, norm_c = (math.sqrt(sum(x * x for x in row)) for row in (w, c))
            total += sum((a / norm_w - b / norm_c) ** 2 for a, b in zip(w, c, strict=True))
            count += len(w)
    return total / count if count else 0.0


def batch():
    means = torch.randn(6, 5, dtype=torch.float64)
    means[4] = float("nan")
    new = torch.randn(7, 5, dtype=torch.float64)
    return new, torch.tensor([5, 0, 3, 4, 1, 1, 0]), torch.randn(6, 5, dtype=torch.float64), means, torch.rand(7)


@pytest.mark.parametrize("weight", [0.0, 1.0, 100.0])
def test_equals_the_oracle(weight):
    new, pids, classifier, means, radii = batch()
    expected = weight * alignment_by_loops(classifier, means) + boundary_loss(new, pids, means, radii).item()
    assert lce_loss(new, pids, classifier, means, radii, weight).item() == pytest.approx(expected, rel=1e-9)


def test_gradients():
    new, pids, classifier, means, radii = batch()
    given = (new.requires_grad_(), classifier.requires_grad_())
    assert torch.autograd.gradcheck(lambda f, w: lce_loss(f, pids, w, means, radii), given)


def test_a_classifier_on_the_old_means_costs_nothing():
    new, pids, _, means, _ = batch()
    classifier = (3 * means).nan_to_num(1.0)
    assert lce_loss(new, pids, classifier, means, torch.full((7,), 2.0)).item() == pytest.approx(0, abs=1e-12)


def test_without_any_old_mean_it_is_zero():
    new, pids, classifier, means, radii = batch()
    new.requires_grad_()
    classifier.requires_grad_()
    loss = lce_loss(new, pids, classifier, torch.full_like(means, float("nan")), radii)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(classifier.grad, torch.zeros_like(classifier))
    assert torch.equal(new.grad, torch.zeros_like(new))


def test_the_module_finds_the_boundary_in_the_gallery():
    new, pids, classifier, means, _ = (item.float() if item.is_floating_point() else item for item in batch())
    gallery, gallery_pids = torch.randn(40, 5), torch.arange(40) % 4
    given = {"class_means": means, "classifier": classifier, "gallery": gallery, "gallery_pids": gallery_pids}
    value = LCELoss(align_weight=7.0)(new, torch.randn(7, 5), pids, **given)
    radii = old_radii(gallery, gallery_pids, means, pids)
    assert torch.equal(value, lce_loss(new, pids, classifier, means, radii, 7.0))


def test_errors():
    new, pids, classifier, means, radii = batch()
    with pytest.raises(ValueError, match="align_weight is -1"):
        LCELoss(-1)
    with pytest.raises(ValueError, match=r"got \(5, 5\) and \(6, 5\)"):
        lce_loss(new, pids, classifier[:5], means, radii)
