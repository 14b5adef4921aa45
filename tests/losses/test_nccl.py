"""Neighbourhood consensus contrastive loss."""

import copy
import math

import pytest
import torch

from torchreid_ptl.losses import NCCLLoss, nccl_loss


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
