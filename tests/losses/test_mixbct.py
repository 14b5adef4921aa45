"""MixBCT: credible old features, the mixed batch and its loss."""

import copy
import math

import pytest
import torch

import torchreid_ptl
from torchreid_ptl.losses import MixBCTLoss, credible_mask, margin_softmax_loss, mix_features, mixbct, mixbct_loss


def credible_by_loops(features, pids, keep):
    """Straightforward loops over rows, columns and classes."""
    rows = [[x / (math.sqrt(sum(y * y for y in row)) or 1.0) for x in row] for row in features.tolist()]
    dim = len(rows[0])
    for d in range(dim):
        norm = math.sqrt(sum(row[d] ** 2 for row in rows)) or 1.0
        for row in rows:
            row[d] /= norm
    chosen = set()
    for pid in set(pids.tolist()):
        members = [i for i, p in enumerate(pids.tolist()) if p == pid]
        mean = [sum(rows[i][d] for i in members) / len(members) for d in range(dim)]
        distance = {i: math.sqrt(sum((rows[i][d] - mean[d]) ** 2 for d in range(dim))) for i in members}
        chosen |= set(sorted(members, key=lambda i: distance[i])[: math.ceil(keep * len(members))])
    return [i in chosen for i in range(len(rows))]


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_credible_mask_equals_the_loops_for_shuffled_labels(keep, rows, monkeypatch):
    monkeypatch.setattr(mixbct, "ROWS", rows)
    pids = torch.randint(7, (60,)) * 13 - 4
    features = torch.randn(60, 8) * torch.rand(60, 1) * 50
    got = credible_mask(features, pids, keep)
    assert got.dtype == torch.bool
    assert got.tolist() == credible_by_loops(features, pids, keep)
    order = torch.randperm(60)
    assert torch.equal(credible_mask(features[order], pids[order], keep), got[order])


def test_how_many_stay():
    pids = torch.arange(10).repeat_interleave(torch.arange(1, 11))
    mask = credible_mask(torch.randn(len(pids), 5), pids, 0.9)
    kept = [int(mask[pids == c].sum()) for c in range(10)]
    assert kept == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def test_the_outlier_goes():
    features = torch.randn(1, 16).repeat(10, 1) + 0.1 * torch.randn(10, 16)
    features[3] = -features[3]
    mask = credible_mask(torch.cat([features, torch.randn(10, 16)]), torch.arange(20) // 10)
    assert mask[:10].tolist() == [i != 3 for i in range(10)]


def test_a_column_of_zeros_and_a_lone_sample():
    features = torch.randn(6, 4)
    features[:, 2] = 0
    assert credible_mask(features, torch.tensor([0, 1, 1, 1, 1, 2]), 0.5).tolist()[0]
    assert credible_mask(features, torch.tensor([0, 1, 1, 1, 1, 2]), 0.5).sum() == 4


def test_an_empty_set():
    assert credible_mask(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_half_precision_chooses_as_float32_does():
    features, pids = torch.randn(50, 8).half(), torch.arange(50) % 4
    assert torch.equal(credible_mask(features, pids, 0.5), credible_mask(features.float(), pids, 0.5))


def test_credible_mask_errors():
    with pytest.raises(ValueError, match="keep is 0"):
        credible_mask(torch.ones(3, 2), torch.arange(3), 0)
    with pytest.raises(ValueError, match="keep is 1.1"):
        credible_mask(torch.ones(3, 2), torch.arange(3), 1.1)
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(2,\)"):
        credible_mask(torch.ones(3, 2), torch.arange(2))
    with pytest.raises(ValueError, match="1 of 3 rows of the old features are not finite"):
        credible_mask(torch.tensor([[1.0], [math.inf], [2.0]]), torch.arange(3))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("credible", "ratio", "expected"), [(10, 0.3, 3), (2, 0.3, 2), (0, 0.3, 0), (10, 1, 10), (10, 0, 0)]
)
def test_how_many_are_replaced(credible, ratio, expected):
    new, old, mask = torch.randn(10, 4), torch.randn(10, 4), torch.arange(10) < credible
    mixed, replaced = mix_features(new, old, mask, ratio, generator())
    assert replaced.sum() == expected
    assert not (replaced & ~mask).any()
    for i in range(10):
        norm = math.sqrt(sum(x * x for x in old[i].tolist()))
        wanted = [x / norm for x in old[i].tolist()] if replaced[i] else new[i].tolist()
        assert mixed[i].tolist() == pytest.approx(wanted, rel=1e-6)


def test_seeded_draws_repeat_and_differ():
    new, old, mask = torch.randn(40, 4), torch.randn(40, 4), torch.rand(40) < 0.9
    one, two = generator(3), generator(3)
    first = [mix_features(new, old, mask, 0.3, one)[1] for _ in range(4)]
    again = [mix_features(new, old, mask, 0.3, two)[1] for _ in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])


def test_every_credible_sample_is_drawn_as_often():
    new, old, mask, drawn, source = torch.randn(10, 2), torch.randn(10, 2), torch.arange(10) < 5, 0, generator()
    for _ in range(1000):
        drawn = drawn + mix_features(new, old, mask, 0.3, source)[1].int()
    assert drawn[5:].sum() == 0
    assert all(540 < count < 660 for count in drawn[:5].tolist())


def test_gradient_reaches_what_was_not_replaced_and_nothing_old():
    new, old = torch.randn(10, 4, requires_grad=True), torch.randn(10, 4, requires_grad=True)
    mixed, replaced = mix_features(new, old, torch.ones(10, dtype=torch.bool), 0.5, generator())
    mixed.sum().backward()
    assert old.grad is None
    assert torch.equal(new.grad, (~replaced).float()[:, None].expand(10, 4))


def test_mix_features_errors():
    new, mask = torch.randn(10, 4), torch.ones(10, dtype=torch.bool)
    with pytest.raises(ValueError, match="ratio is 1.1"):
        mix_features(new, new, mask, 1.1, generator())
    with pytest.raises(ValueError, match=r"credible is a bool \(B,\)"):
        mix_features(new, new, mask[:9], 0.3, generator())
    with pytest.raises(ValueError, match="embedding head of 3"):
        mix_features(new, new[:, :3], mask, 0.3, generator())


def batch(dtype=torch.float64):
    return (
        torch.randn(12, 6, dtype=dtype),
        torch.randn(12, 6, dtype=dtype),
        torch.arange(12) % 4,
        torch.randn(4, 6, dtype=dtype),
        torch.rand(12) < 0.9,
    )


def test_ratio_0_is_the_margin_softmax():
    new, old, pids, weight, credible = batch()
    plain = margin_softmax_loss(new, weight, pids, 30.0, 0.3)
    assert torch.equal(mixbct_loss(new, old, pids, weight, credible, 0.0, 30.0, 0.3, generator()), plain)
    loss = MixBCTLoss(4, 6, ratio=0.0, scale=30.0, margin=0.3)
    expected = margin_softmax_loss(new.float(), loss.classes, pids, 30.0, 0.3)
    assert torch.equal(loss(new.float(), old.float(), pids), expected)
    order = torch.randperm(12)
    torch.testing.assert_close(loss(new[order].float(), old[order].float(), pids[order]), expected)


def test_the_loss_is_the_margin_softmax_of_the_mixed_batch():
    new, old, pids, weight, credible = batch()
    mixed, replaced = mix_features(new, old, credible, 0.5, generator(7))
    assert replaced.any()
    value = mixbct_loss(new, old, pids, weight, credible, 0.5, 64.0, 0.5, generator(7))
    assert torch.equal(value, margin_softmax_loss(mixed, weight, pids))


def test_gradients():
    new, old, pids, weight, credible = batch()
    given = (new.requires_grad_(), weight.requires_grad_())
    loss = lambda n, w: mixbct_loss(n, old, pids, w, credible, 0.3, 8.0, 0.5, generator())  # noqa: E731
    assert torch.autograd.gradcheck(loss, given)


def test_only_credible_images_of_the_bank_are_replaced():
    credible = torch.tensor([True, False] * 10)
    loss = MixBCTLoss(4, 6, credible, ratio=1.0)
    assert loss.needs == ("image_ids",)
    assert MixBCTLoss(4, 6).needs == ()
    new, old, pids = (item for item in batch(torch.float32)[:3])
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, -1, -1, 19, 18])
    new.requires_grad_()
    loss(new, old, pids, image_ids=ids).backward()
    untouched = (new.grad != 0).any(dim=1)
    assert untouched.tolist() == [bool(i < 0 or not credible[i]) for i in ids]


def test_the_draws_go_on_after_a_checkpoint():
    new, old, pids = (item for item in batch(torch.float32)[:3])
    loss = MixBCTLoss(4, 6, seed=5)
    loss(new, old, pids)
    twin = MixBCTLoss(4, 6, seed=99)
    twin.load_state_dict(loss.state_dict())
    copied = copy.deepcopy(loss)
    values = [loss(new, old, pids).item() for _ in range(3)]
    assert [twin(new, old, pids).item() for _ in range(3)] == values
    assert [copied(new, old, pids).item() for _ in range(3)] == values
    assert len(set(values)) > 1


def test_the_state_is_read_with_weights_only(tmp_path):
    loss = MixBCTLoss(4, 6)
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    loss.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))


def test_settings_out_of_range():
    for wrong in ({"ratio": -0.1}, {"scale": 0}, {"margin": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MixBCTLoss(4, 6, **wrong)


def test_public_names():
    assert torchreid_ptl.losses.credible_mask is credible_mask
    assert torchreid_ptl.losses.mix_features is mix_features
