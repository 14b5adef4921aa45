"""AdvBCT: discriminator and elastic boundary."""

import math

import pytest
import torch

from torchreid_ptl.losses import AdvBCTLoss, adversarial_loss, boundary_loss, old_radii
from torchreid_ptl.losses.advbct import Discriminator, elastic_radii


def unit(row):
    norm = math.sqrt(sum(x * x for x in row))
    return [x / norm for x in row]


def entropy_by_loops(new, old, discriminator):
    """Cross-entropy of telling old from new, by the layers' numbers."""
    state = {name: value.tolist() for name, value in discriminator.state_dict().items()}
    total = 0.0
    for row, is_old in [(r, 0) for r in new.tolist()] + [(r, 1) for r in old.tolist()]:
        x = unit(row)
        hidden = [
            max(sum(a * b for a, b in zip(w, x, strict=True)) + bias, 0.0)
            for w, bias in zip(state["hidden.weight"], state["hidden.bias"], strict=True)
        ]
        logit = sum(a * b for a, b in zip(state["output.weight"][0], hidden, strict=True)) + state["output.bias"][0]
        total += math.log(1 + math.exp(-logit if is_old else logit))
    return total / (len(new) + len(old))


def batch():
    torch.manual_seed(1)
    discriminator = Discriminator(5, 7).double()
    return torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64), discriminator


def test_equals_the_oracle():
    given = batch()
    assert adversarial_loss(*given).item() == pytest.approx(entropy_by_loops(*given), rel=1e-12)


@pytest.mark.parametrize("reversal", [1.0, 0.25])
def test_the_gradient_of_the_features_is_reversed_and_the_discriminators_is_not(reversal):
    new, old, discriminator = batch()
    new.requires_grad_()
    ours = torch.autograd.grad(adversarial_loss(new, old, discriminator, reversal), [new, *discriminator.parameters()])
    step, numeric = 1e-6, torch.zeros_like(new)
    for i in range(6):
        for d in range(5):
            shift = torch.zeros_like(new)
            shift[i, d] = step
            up, down = (entropy_by_loops(new.detach() + s, old, discriminator) for s in (shift, -shift))
            numeric[i, d] = (up - down) / (2 * step)
    torch.testing.assert_close(ours[0], -reversal * numeric, rtol=1e-5, atol=1e-9)
    for mine, parameter in zip(ours[1:], discriminator.parameters(), strict=True):
        flat, place = parameter.data.view(-1), mine.abs().argmax()
        kept, values = flat[place].item(), []
        for sign in (1, -1):
            flat[place] = kept + sign * step
            values.append(entropy_by_loops(new.detach(), old, discriminator))
        flat[place] = kept
        assert mine.view(-1)[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_the_play_brings_new_features_to_the_side_of_the_old():
    torch.manual_seed(0)
    old = torch.randn(64, 4) * 0.2 + torch.tensor([1.0, 0.0, 0.0, 0.0])
    new = torch.nn.Parameter(torch.randn(64, 4) * 0.2 + torch.tensor([0.0, 1.0, 0.0, 0.0]))
    discriminator = Discriminator(4, 16)
    optimizer = torch.optim.Adam([new, *discriminator.parameters()], 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        adversarial_loss(new, old, discriminator).backward()
        optimizer.step()
    between = torch.nn.functional.normalize(new.mean(0), dim=0) @ torch.nn.functional.normalize(old.mean(0), dim=0)
    assert between > 0.6


def test_the_module_adds_the_elastic_boundary():
    new, old, pids = torch.randn(6, 5), torch.randn(6, 5), torch.arange(6) // 2
    means, gallery, gallery_pids = torch.randn(3, 5), torch.randn(30, 5), torch.arange(30) % 3
    loss = AdvBCTLoss(5, hidden=7, elasticity=0.25, boundary_weight=3.0)
    assert [tuple(p.shape) for p in loss.parameters()] == [(7, 5), (7,), (1, 7), (1,)]
    value = loss(new, old, pids, class_means=means, gallery=gallery, gallery_pids=gallery_pids)
    outside = boundary_loss(new, pids, means, old_radii(gallery, gallery_pids, means, pids, 0.25))
    torch.testing.assert_close(value, adversarial_loss(new, old, loss.discriminator) + 3 * outside)


def test_settings_out_of_range():
    for name in ("hidden", "elasticity", "reversal", "boundary_weight"):
        with pytest.raises(ValueError, match=f"{name} is -1"):
            AdvBCTLoss(5, **{name: -1})


def test_the_learned_boundary_equals_the_loop_and_moves_towards_the_limit():
    radii = torch.tensor([0.1, 0.7, math.inf], dtype=torch.float64)
    share = torch.tensor([0.3, -0.8, 0.0], dtype=torch.float64, requires_grad=True)
    moved = elastic_radii(radii, share, 0.5)
    expected = [r + (0.5 - r) / (1 + math.exp(-e)) for r, e in zip(radii.tolist()[:2], share.tolist()[:2], strict=True)]
    assert moved.tolist() == pytest.approx([*expected, math.inf])
    moved[:2].sum().backward()
    assert share.grad.isfinite().all()
    assert share.grad[0] > 0 > share.grad[1]


def test_the_module_learns_the_boundary_of_each_identity():
    new, old, pids = torch.randn(6, 5), torch.randn(6, 5), torch.arange(6) // 2
    means, gallery, gallery_pids = torch.randn(3, 5), torch.randn(30, 5), torch.arange(30) % 3
    loss = AdvBCTLoss(5, hidden=7, boundary="learned", limit=0.4, num_classes=3)
    assert loss.share.shape == (3,)
    assert loss.share.abs().max() <= 1
    value = loss(new, old, pids, class_means=means, gallery=gallery, gallery_pids=gallery_pids)
    radii = elastic_radii(old_radii(gallery, gallery_pids, means, pids), loss.share[pids], 0.4)
    outside = boundary_loss(new, pids, means, radii)
    torch.testing.assert_close(value, adversarial_loss(new, old, loss.discriminator) + outside)
    assert "share" not in dict(AdvBCTLoss(5).named_parameters())


def test_settings_of_the_learned_boundary():
    with pytest.raises(ValueError, match="boundary is 'soft'; it is one of fixed, learned"):
        AdvBCTLoss(5, boundary="soft")
    with pytest.raises(ValueError, match="limit is 3"):
        AdvBCTLoss(5, limit=3)
    with pytest.raises(ValueError, match="num_classes is 0"):
        AdvBCTLoss(5, boundary="learned")
