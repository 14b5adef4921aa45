"""Influence loss of backward-compatible training."""

import math

import pytest
import torch
import torch.nn.functional as F

from torchreid_ptl.losses import BCTLoss, bct_loss, join_prototypes


def oracle(new, prototypes, targets, scale):
    """Plain loops; a prototype of NaN is no class, a sample without a class is left out."""
    classes = [row if all(math.isfinite(x) for x in row) else None for row in prototypes.tolist()]
    total, counted = 0.0, 0
    for f, target in zip(new.tolist(), targets.tolist(), strict=True):
        if target < 0 or classes[target] is None:
            continue
        logits = {}
        for c, row in enumerate(classes):
            if row is not None:
                norms = math.sqrt(sum(x * x for x in f) * sum(x * x for x in row)) / scale if scale else 1.0
                logits[c] = sum(x * y for x, y in zip(f, row, strict=True)) / norms
        largest = max(logits.values())
        total += largest + math.log(sum(math.exp(x - largest) for x in logits.values())) - logits[target]
        counted += 1
    return total / counted if counted else 0.0


def batch():
    prototypes = torch.randn(7, 6, dtype=torch.float64)
    prototypes[[2, 5]] = float("nan")
    return torch.randn(8, 6, dtype=torch.float64), prototypes, torch.tensor([0, 1, 2, 3, -1, 6, 6, 4])


@pytest.mark.parametrize("scale", [16.0, 1.0, None])
def test_equals_the_oracle(scale):
    given = batch()
    assert bct_loss(*given, scale).item() == pytest.approx(oracle(*given, scale), rel=1e-12)


@pytest.mark.parametrize("scale", [16.0, None])
def test_gradient(scale):
    new, prototypes, targets = batch()
    assert torch.autograd.gradcheck(lambda x: bct_loss(x, prototypes, targets, scale), new.requires_grad_())


def test_all_known_and_unscaled_is_the_old_models_own_loss():
    new, weight, targets = torch.randn(4, 6), torch.randn(5, 6), torch.tensor([0, 4, 2, 2])
    torch.testing.assert_close(
        bct_loss(new, weight, targets, scale=None), F.cross_entropy(F.linear(new, weight), targets)
    )


@pytest.mark.parametrize("scale", [16.0, None])
@pytest.mark.parametrize("all_gone", [True, False])
def test_a_batch_of_unknown_identities_costs_nothing(scale, all_gone):
    new = torch.randn(4, 6, requires_grad=True)
    prototypes = torch.full((3, 6), float("nan"))
    if not all_gone:
        prototypes[0] = 1.0
    loss = bct_loss(new, prototypes, torch.tensor([-1, -1, 1, 2]), scale)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(new.grad, torch.zeros_like(new))


def test_no_gradient_into_the_prototypes():
    new, prototypes, targets = batch()
    new.requires_grad_()
    prototypes.requires_grad_()
    bct_loss(new, prototypes, targets).backward()
    assert prototypes.grad is None


def test_class_means_stand_in_for_identities_the_old_classifier_lacks():
    classifier, means = torch.randn(3, 4), torch.randn(5, 4)
    means[4] = float("nan")
    prototypes, rows = join_prototypes(classifier, torch.tensor([2, -1, 0, -1, -1]), means)
    assert torch.equal(prototypes, torch.cat([classifier, means[[1, 3]]]))
    assert rows.tolist() == [2, 3, 0, 4, -1]


def test_the_module_with_classifier_with_means_and_with_plain_logits():
    new, old, pids = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 4])
    classifier, means, known = torch.randn(3, 4), torch.randn(5, 4), torch.tensor([2, -1, 0, -1, -1])
    means[4] = float("nan")
    joined, rows = join_prototypes(classifier, known, means)
    value = BCTLoss("classifier")(new, old, pids, old_classifier=classifier, old_classes=known, class_means=means)
    assert torch.equal(value, bct_loss(new, joined, rows[pids], 16.0))
    assert torch.equal(BCTLoss("means")(new, old, pids, class_means=means), bct_loss(new, means, pids, 16.0))
    plain = BCTLoss("classifier", scale=None)
    assert plain.needs == ("old_classifier", "old_classes")
    value = plain(new, old, pids, old_classifier=classifier, old_classes=known)
    assert torch.equal(value, bct_loss(new, classifier, known[pids], None))


def test_auto_takes_the_old_classifier_where_it_knows_every_identity():
    new, pids, means = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 4]), torch.randn(5, 4)
    given = {"new": new, "old": torch.randn(5, 4), "pids": pids, "class_means": means}
    classifier, every = torch.randn(7, 4), torch.tensor([6, 2, 0, 3, 1])
    auto, by_means = BCTLoss(), BCTLoss("means")(**given)
    assert torch.equal(auto(**given), by_means)
    some = every.masked_fill(every == 3, -1)
    assert torch.equal(auto(**given, old_classifier=classifier, old_classes=some), by_means)
    whole = auto(**given, old_classifier=classifier, old_classes=every)
    assert torch.equal(whole, bct_loss(new, classifier, every[pids], 16.0))
    with pytest.raises(ValueError, match="need a scale"):
        BCTLoss("auto", scale=None)


def test_errors():
    with pytest.raises(ValueError, match="prototypes is 'old'.*auto, classifier, means"):
        BCTLoss("old")
    with pytest.raises(ValueError, match="scale is 0"):
        BCTLoss(scale=0)
    with pytest.raises(ValueError, match="class means.*need a scale"):
        BCTLoss("means", scale=None)
    with pytest.raises(ValueError, match=r"got \(2, 3\), \(4, 3\) and \(3,\)"):
        bct_loss(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="embedding head of 5"):
        bct_loss(torch.ones(2, 3), torch.ones(4, 5), torch.zeros(2, dtype=torch.long))
