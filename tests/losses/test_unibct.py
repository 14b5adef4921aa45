"""UniBCT: refined prototypes."""

import math

import pytest
import torch

from torchreid_ptl.losses import UniBCTLoss, bct_loss, refine_prototypes, unibct_loss


def unit(row):
    norm = math.sqrt(sum(x * x for x in row)) or 1.0
    return [x / norm for x in row]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def refined_by_loops(new, old, pids, means, lambda_, tau, steps=4000):
    """Propagates step by step until it stands, instead of solving."""
    new, old = [unit(r) for r in new.tolist()], [unit(r) for r in old.tolist()]
    n, result = len(new), [list(r) for r in means.tolist()]
    share = [[0.0] * n for _ in range(n)]
    for i in range(n):
        others = [j for j in range(n) if j != i and pids[j] == pids[i]] or [i]
        weight = {j: math.exp((dot(new[i], new[j]) - 1) / tau) for j in others}
        for j in others:
            share[i][j] = weight[j] / sum(weight.values())
    state = [list(r) for r in old]
    for _ in range(steps if lambda_ else 1):
        state = [
            [
                lambda_ * sum(share[i][j] * state[j][d] for j in range(n) if share[i][j]) + (1 - lambda_) * old[i][d]
                for d in range(len(old[0]))
            ]
            for i in range(n)
        ]
    for pid in set(pids.tolist()):
        members = [i for i in range(n) if pids[i] == pid]
        result[pid] = unit([sum(state[i][d] for i in members) / len(members) for d in range(len(old[0]))])
    return result


PIDS = torch.tensor([0, 0, 0, 2, 2, 3])


def batch():
    means = torch.randn(5, 4, dtype=torch.float64)
    means[2] = float("nan")
    return torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64), PIDS, means


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_refinement_equals_propagation_step_by_step(lambda_, tau):
    given = batch()
    got = refine_prototypes(*given, lambda_, tau)
    expected = torch.tensor(refined_by_loops(*given, lambda_, tau, steps=400), dtype=torch.float64)
    torch.testing.assert_close(got[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got[[1, 4]], torch.nn.functional.normalize(given[3][[1, 4]], dim=1))


def test_an_old_feature_far_from_the_others_in_the_new_space_counts_less():
    old = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    new = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]])
    prototype = refine_prototypes(new, old, torch.zeros(3, dtype=torch.long), torch.zeros(1, 2))[0]
    assert prototype[0] > 0.95
    assert torch.nn.functional.normalize(old.mean(dim=0), dim=0)[0] < 0.9


def test_the_loss_is_bcts_under_refined_prototypes():
    new, old, pids, means = batch()
    expected = bct_loss(new, refine_prototypes(new, old, pids, means), pids, 16.0)
    assert torch.equal(unibct_loss(new, old, pids, means), expected)
    assert torch.equal(UniBCTLoss()(new, old, pids, class_means=means), expected)


def test_the_prototypes_are_constants():
    new, old, pids, means = batch()
    new.requires_grad_()
    constant = refine_prototypes(new, old, pids, means)
    assert not constant.requires_grad
    got = torch.autograd.grad(unibct_loss(new, old, pids, means), new)[0]
    torch.testing.assert_close(got, torch.autograd.grad(bct_loss(new, constant, pids), new)[0])
    assert torch.autograd.gradcheck(lambda x: bct_loss(x, constant, pids), new)


def test_settings_out_of_range():
    for wrong in ({"lambda_": 1.0}, {"lambda_": -0.1}, {"tau": 0.0}, {"scale": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            UniBCTLoss(**wrong)
        with pytest.raises(ValueError, match="is"):
            unibct_loss(*batch(), **wrong)


def test_the_published_refinement_is_the_plain_mean():
    """With shares that sum to 1 by column, whatever the new features are."""
    new, old = torch.randn(2, 6, 5, dtype=torch.float64)
    edges = (new @ new.T / 0.05).fill_diagonal_(-torch.inf).softmax(dim=0)
    refined = 0.1 * torch.linalg.inv(torch.eye(6, dtype=torch.float64) - 0.9 * edges) @ old
    torch.testing.assert_close(refined.mean(dim=0), old.mean(dim=0))
