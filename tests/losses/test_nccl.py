"""Neighbourhood consensus contrastive loss."""

import copy
import math

import pytest
import torch

from torchreid_ptl.losses import NCCLLoss, build_loss, nccl_loss
from torchreid_ptl.losses.nccl import certain_mask


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def oracle(new, old, pids, queue, queue_pids, tau):
    """Plain loops over images and old features."""
    bank = [*old.tolist(), *queue.tolist()]
    labels = [*pids.tolist(), *queue_pids.tolist()]
    total = 0.0
    for f, o, pid in zip(new.tolist(), old.tolist(), pids.tolist(), strict=True):
        negatives = sum(math.exp(cosine(f, b) / tau) for b, p in zip(bank, labels, strict=True) if p != pid)
        value, weights = 0.0, 0.0
        for b, p in zip(bank, labels, strict=True):
            if p == pid:
                weight = (1 + cosine(o, b)) / 2
                mine = math.exp(cosine(f, b) / tau)
                value -= weight * math.log(mine / (mine + negatives))
                weights += weight
        total += value / weights
    return total / len(new)


PIDS = torch.tensor([0, 0, 1, 1, 2])


def batch(queued=9):
    tensors = torch.randn(2, 5, 6, dtype=torch.float64)
    return tensors[0], tensors[1], PIDS, torch.randn(queued, 6, dtype=torch.float64), torch.arange(queued) % 4


@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("queued", [0, 9])
def test_equals_the_oracle(tau, queued):
    given = batch(queued)
    assert nccl_loss(*given, tau).item() == pytest.approx(oracle(*given, tau), rel=1e-9)


def test_gradient():
    new, *rest = batch()
    assert torch.autograd.gradcheck(lambda x: nccl_loss(x, *rest, 0.5), new.requires_grad_())


def test_no_gradient_into_the_queue():
    new, old, pids, queue, queue_pids = batch()
    nccl_loss(new.requires_grad_(), old, pids, queue.requires_grad_(), queue_pids).backward()
    assert queue.grad is None


def test_without_another_identity_nothing_is_paid():
    new = torch.randn(3, 6, requires_grad=True)
    same = torch.zeros(3, dtype=torch.long)
    loss = nccl_loss(new, torch.randn(3, 6), same, torch.randn(4, 6), torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(new.grad, torch.zeros_like(new))


def test_an_old_positive_far_from_ones_own_binds_less():
    old = torch.eye(3)[[0, 0, 2]]
    new = torch.tensor([[0.6, 0.5, 0.4]])
    pulls = []
    for other in (torch.tensor([[0.9, 0.1, 0.0]]), torch.tensor([[-1.0, 0.1, 0.0]])):
        f = new.clone().requires_grad_()
        queue, queue_pids = torch.cat([other, old[2:]]), torch.tensor([0, 1])
        nccl_loss(f, old[:1], torch.tensor([0]), queue, queue_pids, 1.0).backward()
        pulls.append(-(f.grad @ other.T).item())
    assert pulls[0] > 0
    assert pulls[1] < 0.01 * 1  # a weight of nearly zero


def test_the_queue_keeps_the_newest_in_turn():
    loss = NCCLLoss(6, queue_size=12)
    seen, seen_pids = torch.zeros(0, 6), torch.zeros(0, dtype=torch.long)
    for _ in range(4):
        new, old = torch.randn(5, 6), torch.randn(5, 6)
        expected = nccl_loss(new, old, PIDS, seen[-12:], seen_pids[-12:])
        torch.testing.assert_close(loss(new, old, PIDS), expected)
        seen, seen_pids = torch.cat([seen, torch.nn.functional.normalize(old, dim=1)]), torch.cat([seen_pids, PIDS])


def test_a_batch_larger_than_the_queue():
    loss, old = NCCLLoss(6, queue_size=3), torch.randn(5, 6)
    loss(torch.randn(5, 6), old, PIDS)
    new = torch.randn(2, 6)
    torch.testing.assert_close(loss(new, old[:2], PIDS[:2]), nccl_loss(new, old[:2], PIDS[:2], old[2:], PIDS[2:]))


def test_the_queue_is_a_buffer_and_stands_still_in_evaluation():
    loss = NCCLLoss(6, queue_size=8)
    assert not list(loss.parameters())
    given = (torch.randn(5, 6), torch.randn(5, 6), PIDS)
    loss(*given)
    twin = NCCLLoss(6, queue_size=8)
    twin.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert torch.equal(twin(*given), loss(*given))
    before = copy.deepcopy(loss.eval().state_dict())
    assert torch.equal(loss(*given), loss(*given))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), loss.state_dict().values(), strict=True))


def test_backward_after_the_queue_has_moved_on():
    loss = NCCLLoss(6, queue_size=8)
    new = torch.randn(5, 6, requires_grad=True)
    losses = [loss(new, torch.randn(5, 6), PIDS) for _ in range(3)]
    sum(losses).backward()
    assert new.grad.isfinite().all()


def test_errors():
    with pytest.raises(ValueError, match="tau is 0"):
        NCCLLoss(6, tau=0)
    with pytest.raises(ValueError, match="queue_size is 0"):
        NCCLLoss(6, queue_size=0)
    with pytest.raises(ValueError, match="embedding head of 7"):
        NCCLLoss(7)(torch.ones(5, 6), torch.ones(5, 6), PIDS)
    new, old, pids, queue, queue_pids = batch()
    with pytest.raises(ValueError, match=r"queue_pids \(Q,\).*got \(9, 6\) and \(8,\)"):
        nccl_loss(new, old, pids, queue, queue_pids[:8])


def logits_by_loops(rows, classifier):
    return [[cosine(row, axis) for axis in classifier.tolist()] for row in rows.tolist()]


@pytest.mark.parametrize("queued", [0, 9])
def test_the_term_on_class_logits_equals_the_oracle(queued):
    new, old, pids, queue, queue_pids = batch(queued)
    classifier = torch.randn(4, 6, dtype=torch.float64)
    bank, labels = torch.cat([old, queue]), [*pids.tolist(), *queue_pids.tolist()]
    g, h = logits_by_loops(new, classifier), logits_by_loops(bank, classifier)
    total = 0.0
    for i, pid in enumerate(pids.tolist()):
        negatives = sum(math.exp(cosine(g[i], b) / 0.5) for b, p in zip(h, labels, strict=True) if p != pid)
        value, weights = 0.0, 0.0
        for j, p in enumerate(labels):
            if p == pid:
                weight = (1 + cosine(old[i].tolist(), bank[j].tolist())) / 2
                mine = math.exp(cosine(g[i], h[j]) / 0.5)
                value -= weight * math.log(mine / (mine + negatives))
                weights += weight
        total += value / weights / len(new)
    whole = nccl_loss(new, old, pids, queue, queue_pids, 0.5, classifier=classifier, logit_weight=0.25)
    expected = oracle(new, old, pids, queue, queue_pids, 0.5) + 0.25 * total
    assert whole.item() == pytest.approx(expected, rel=1e-9)


def test_the_term_on_class_logits_trains_the_classifier_by_new_logits_alone():
    new, *rest = batch()
    classifier = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    nccl_loss(new, *rest, 0.5, classifier=classifier, logit_weight=1.0).backward()
    old_side = classifier.grad.clone()
    assert old_side.abs().sum() > 0
    loss = NCCLLoss(6, logit_weight=0.5)
    assert loss.needs == ("classifier",)
    given = loss(*batch(0)[:3], classifier=classifier.detach())
    assert given.isfinite()


def certain_by_loops(features, pids):
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in features.tolist()]
    classes = sorted(set(pids.tolist()))
    means = {}
    for c in classes:
        members = [row for row, p in zip(rows, pids.tolist(), strict=True) if p == c]
        means[c] = [sum(values) / len(members) for values in zip(*members, strict=True)]
    own = [math.dist(row, means[p]) for row, p in zip(rows, pids.tolist(), strict=True)]
    centre = sum(own) / len(own)
    variance = sum((d - centre) ** 2 for d in own) / len(own)
    found = []
    for row in rows:
        scores = [-math.dist(row, means[c]) / variance for c in classes]
        shares = [math.exp(score - max(scores)) for score in scores]
        shares = [share / sum(shares) for share in shares]
        found.append(-sum(p * math.log(p) for p in shares if p > 0) <= math.log(len(classes)) / 2)
    return found


def test_the_choice_of_credible_old_features_equals_the_oracle():
    centres = torch.randn(4, 6, dtype=torch.float64)
    pids = torch.arange(60) % 4 * 10
    features = centres[torch.arange(60) % 4] + 1.5 * torch.randn(60, 6, dtype=torch.float64)
    found = certain_mask(features, pids)
    assert found.tolist() == certain_by_loops(features, pids)
    assert 0 < found.sum() < 60


def test_old_features_that_are_not_credible_take_no_part():
    loss = build_loss("nccl", {"credible": "entropy", "queue_size": 8}, dim=6)
    assert loss.needs == ("image_ids",)
    loss.certain = torch.tensor([True, False, True, True, False])
    new, old = torch.randn(2, 5, 6)
    kept = torch.tensor([0, 2, 3])
    nothing = torch.zeros(0, 6), torch.zeros(0, dtype=torch.long)
    value = loss(new, old, PIDS, image_ids=torch.arange(5))
    torch.testing.assert_close(value, nccl_loss(new[kept], old[kept], PIDS[kept], *nothing))
    assert int(loss.seen) == 3
    none = loss(new[:1].requires_grad_(), old[:1], PIDS[:1], image_ids=torch.tensor([1]))
    assert none.item() == 0


def test_the_log_says_how_much_of_the_queue_is_filled_until_it_is_full():
    loss = NCCLLoss(6, queue_size=10)
    assert loss.remark() == "the queue has 0 of 10 old features; the term rises until it is full"
    for _ in range(2):
        loss(torch.randn(5, 6), torch.randn(5, 6), PIDS)
    assert loss.remark() == ""


def test_settings_of_the_whole_method():
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="logit_weight is"):
            NCCLLoss(6, logit_weight=wrong)
    with pytest.raises(ValueError, match="credible is 'some'; it is one of all, entropy"):
        NCCLLoss(6, credible="some")
