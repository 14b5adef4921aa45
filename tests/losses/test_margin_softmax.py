"""Margin softmax (ArcFace)."""

import math

import pytest
import torch
import torch.nn.functional as F

from torchreid_ptl.losses import margin_softmax_loss


def oracle(features, weight, targets, scale, margin):
    """Plain loops with angles."""
    total = 0.0
    for row, target in zip(features.tolist(), targets.tolist(), strict=True):
        logits = []
        for c, prototype in enumerate(weight.tolist()):
            dot = sum(a * b for a, b in zip(row, prototype, strict=True))
            cosine = dot / math.sqrt(sum(a * a for a in row)) / math.sqrt(sum(b * b for b in prototype))
            if c == target:
                angle = math.acos(max(-1.0, min(1.0, cosine)))
                inside = angle + margin < math.pi
                cosine = math.cos(angle + margin) if inside else cosine - margin * math.sin(margin)
            logits.append(scale * cosine)
        largest = max(logits)
        total += largest + math.log(sum(math.exp(x - largest) for x in logits)) - logits[target]
    return total / len(features)


def batch(n=7, classes=5, dim=6, dtype=torch.float64):
    return torch.randn(n, dim, dtype=dtype), torch.randn(classes, dim, dtype=dtype), torch.arange(n) % classes


@pytest.mark.parametrize(("scale", "margin"), [(64.0, 0.5), (30.0, 0.3), (1.0, 0.0), (16.0, 1.5)])
def test_equals_the_oracle(scale, margin):
    given = batch()
    assert margin_softmax_loss(*given, scale, margin).item() == pytest.approx(oracle(*given, scale, margin), rel=1e-9)


def test_margin_0_is_the_cosine_softmax():
    features, weight, targets = batch()
    logits = 10 * F.normalize(features, dim=1) @ F.normalize(weight, dim=1).T
    torch.testing.assert_close(margin_softmax_loss(features, weight, targets, 10, 0), F.cross_entropy(logits, targets))


def test_the_loss_grows_with_the_angle_all_the_way_to_pi():
    weight = torch.eye(3, dtype=torch.float64)[[0, 2]]
    angles = torch.linspace(0.0, math.pi, 200, dtype=torch.float64)
    features = torch.stack([angles.cos(), angles.sin(), 0 * angles], dim=1)
    losses = [margin_softmax_loss(row[None], weight, torch.tensor([0]), 4, 0.5).item() for row in features]
    assert all(a < b for a, b in zip(losses, losses[1:], strict=False))


@pytest.mark.parametrize("sign", [1, -1])
def test_parallel_features_have_a_finite_gradient(sign):
    weight = torch.randn(4, 8)
    features = (sign * 3 * weight).requires_grad_()
    weight = weight.requires_grad_()
    margin_softmax_loss(features, weight, torch.arange(4)).backward()
    assert features.grad.isfinite().all()
    assert weight.grad.isfinite().all()


def test_gradients():
    features, weight, targets = batch()
    given = (features.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda f, w: margin_softmax_loss(f, w, targets, 8.0), given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    features, weight, targets = batch(dtype=torch.float32)
    features, weight = (100 * features).to(dtype), weight.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = margin_softmax_loss(features, weight, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(features.double(), weight.double(), targets, 64, 0.5), rel=1e-4)


def test_order_and_length_play_no_part():
    features, weight, targets = batch()
    order = torch.randperm(7)
    expected = margin_softmax_loss(features, weight, targets)
    torch.testing.assert_close(margin_softmax_loss(features[order], weight, targets[order]), expected)
    torch.testing.assert_close(margin_softmax_loss(5 * features, 0.1 * weight, targets), expected)


def test_errors():
    features, weight, targets = batch()
    with pytest.raises(ValueError, match=r"got \(7, 6\), \(5, 5\) and \(7,\)"):
        margin_softmax_loss(features, weight[:, :5], targets)
    with pytest.raises(ValueError, match=r"got \(7, 6\), \(5, 6\) and \(6,\)"):
        margin_softmax_loss(features, weight, targets[:6])
    with pytest.raises(ValueError, match="scale is 0"):
        margin_softmax_loss(features, weight, targets, 0)
    with pytest.raises(ValueError, match="margin is 3.2"):
        margin_softmax_loss(features, weight, targets, margin=3.2)
