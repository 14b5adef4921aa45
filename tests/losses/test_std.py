"""Student-Teacher Distillation: the loss."""

import math

import pytest
import torch
import torch.nn.functional as F

import torchreid_ptl
from torchreid_ptl.losses import STDLoss, std_loss


def oracle(logits, features, teacher, targets, lambda_):
    """Plain loops over images, classes and dimensions."""
    entropy = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        largest = max(row)
        entropy += largest + math.log(sum(math.exp(value - largest) for value in row)) - row[target]
    distance, count = 0.0, 0
    for mine, its in zip(features.tolist(), teacher.tolist(), strict=True):
        for a, b in zip(mine, its, strict=True):
            distance += abs(a - b)
            count += 1
    return (1 - lambda_) * entropy / len(logits) + lambda_ * distance / count


def batch(n=6, classes=5, dim=8, dtype=torch.float64):
    return (
        torch.randn(n, classes, dtype=dtype),
        torch.randn(n, dim, dtype=dtype),
        torch.randn(n, dim, dtype=dtype),
        torch.randint(classes, (n,)),
    )


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("n", [1, 6])
def test_equals_the_oracle(lambda_, n):
    given = batch(n)
    assert std_loss(*given, lambda_).item() == pytest.approx(oracle(*given, lambda_), rel=1e-12)
    assert torch.equal(STDLoss(lambda_)(*given), std_loss(*given, lambda_))


def test_the_papers_lambda_is_the_default():
    given = batch()
    assert torch.equal(std_loss(*given), std_loss(*given, 0.8))
    assert torch.equal(torchreid_ptl.losses.STDLoss()(*given), std_loss(*given, 0.8))


@pytest.mark.parametrize("lambda_", [0.0, 0.8, 1.0])
def test_gradients(lambda_):
    logits, features, teacher, targets = batch()
    logits.requires_grad_()
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, f: std_loss(x, f, teacher, targets, lambda_), (logits, features))


def test_lambda_0_is_the_cross_entropy_bit_by_bit():
    logits, features, _, targets = batch(dtype=torch.float32)
    assert torch.equal(std_loss(logits, features, None, targets, 0.0), F.cross_entropy(logits, targets))
    assert torch.equal(std_loss(logits, None, None, targets, 0.0), F.cross_entropy(logits, targets))
    smooth = std_loss(logits, None, None, targets, 0.0, label_smoothing=0.1)
    assert torch.equal(smooth, F.cross_entropy(logits, targets, label_smoothing=0.1))


def test_lambda_1_needs_no_label_and_no_logits():
    _, features, teacher, _ = batch(dtype=torch.float32)
    assert torch.equal(std_loss(None, features, teacher, None, 1.0), F.l1_loss(features, teacher))


def test_no_gradient_into_the_teacher():
    logits, features, teacher, targets = batch()
    teacher.requires_grad_()
    features.requires_grad_()
    std_loss(logits, features, teacher, targets).backward()
    assert teacher.grad is None
    assert features.grad.abs().sum() > 0


def test_a_student_equal_to_its_teacher_pays_nothing_for_it():
    logits, features, _, targets = batch(dtype=torch.float32)
    assert std_loss(logits, features, features, targets, 1.0).item() == 0
    torch.testing.assert_close(std_loss(logits, features, features, targets), 0.2 * F.cross_entropy(logits, targets))


def test_order_of_the_batch_does_not_matter():
    given = batch()
    order = torch.randperm(6)
    torch.testing.assert_close(std_loss(*given), std_loss(*(item[order] for item in given)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    logits, features, teacher, targets = batch(n=64, dim=2048, dtype=torch.float32)
    given = (logits.to(dtype), (1000 * features).to(dtype), (1000 * teacher).to(dtype), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = std_loss(*given)
    assert loss.dtype == torch.float32
    logits, features, teacher, targets = given
    exact = oracle(logits.double(), features.double(), teacher.double(), targets, 0.8)
    assert loss.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("lambda_", [-0.1, 1.01, float("nan")])
def test_lambda_outside_its_range(lambda_):
    with pytest.raises(ValueError, match="lambda_ is .*from 0 to 1"):
        std_loss(*batch(), lambda_)
    with pytest.raises(ValueError, match="lambda_ is"):
        STDLoss(lambda_)


def test_shapes_that_do_not_fit():
    logits, features, teacher, targets = batch()
    with pytest.raises(ValueError, match=r"student \(6, 8\) and teacher \(6, 7\).*project the student"):
        std_loss(logits, features, teacher[:, :7], targets)
    with pytest.raises(ValueError, match=r"targets \(N,\); got \(6, 5\) and \(5,\)"):
        std_loss(logits, features, teacher, targets[:5])
    with pytest.raises(ValueError, match="only lambda 1 does without"):
        std_loss(None, features, teacher, targets)
    with pytest.raises(ValueError, match="student and teacher are needed"):
        std_loss(logits, features, None, targets)
