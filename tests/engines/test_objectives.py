"""Objectives and the outputs they read."""

import pytest
import torch
import torchreid
from torch import nn

from torchreid_ptl.engines import MGNObjective, Objective, Outputs, SoftmaxObjective, TripletObjective
from torchreid_ptl.engines.finite import gradient_norm
from torchreid_ptl.engines.objectives import accuracy

PIDS = torch.tensor([0, 0, 1, 1])


def outputs(heads=1, wholes=1):
    logits = tuple(torch.randn(4, 3) for _ in range(heads))
    return Outputs(logits, tuple(torch.randn(4, 8) for _ in range(wholes)))


@pytest.mark.parametrize("smooth", [True, False])
def test_softmax_equals_the_hosts(smooth):
    out = outputs(heads=3)
    host = torchreid.losses.CrossEntropyLoss(num_classes=3, use_gpu=False, label_smooth=smooth)
    expected = torchreid.losses.DeepSupervision(host, out.logits, PIDS)
    terms = SoftmaxObjective(smooth)(out, PIDS)
    assert list(terms) == ["loss_x"]
    torch.testing.assert_close(terms["loss_x"], expected)


def test_triplet_equals_the_hosts():
    out = outputs(wholes=2)
    terms = TripletObjective(margin=0.5, weight_t=0.7, weight_x=0.2)(out, PIDS)
    expected_t = torchreid.losses.DeepSupervision(torchreid.losses.TripletLoss(0.5), out.features, PIDS)
    host = torchreid.losses.CrossEntropyLoss(num_classes=3, use_gpu=False)
    torch.testing.assert_close(terms["loss_t"], 0.7 * expected_t)
    torch.testing.assert_close(terms["loss_x"], 0.2 * host(out.logits[0], PIDS))


def test_a_weight_of_zero_leaves_the_term_out():
    assert list(TripletObjective(weight_x=0)(outputs(), PIDS)) == ["loss_t"]
    assert list(TripletObjective(weight_t=0, weight_x=1)(outputs(), PIDS)) == ["loss_x"]


@pytest.mark.parametrize("weights", [(0, 0), (-1, 1)])
def test_wrong_weights(weights):
    with pytest.raises(ValueError, match="weight_.* is -|both at least 0, one of them above"):
        TripletObjective(weight_t=weights[0], weight_x=weights[1])


def test_mgn_is_triplet_over_three_wholes_plus_cross_entropy_over_eight():
    out = outputs(heads=8, wholes=3)
    terms = MGNObjective()(out, PIDS)
    triplet = [torchreid.losses.TripletLoss(1.2)(whole, PIDS) for whole in out.features]
    cross = [torch.nn.functional.cross_entropy(head, PIDS) for head in out.logits]
    torch.testing.assert_close(terms["loss_t"], sum(triplet) / 3)
    torch.testing.assert_close(terms["loss_x"], sum(cross) / 8)


def test_outputs_of_every_form():
    logits, feature = torch.randn(4, 3), torch.randn(4, 8)
    assert Outputs.of(logits, "softmax") == Outputs((logits,), ())
    assert Outputs.of([logits, logits], "softmax").logits == (logits, logits)
    assert Outputs.of(([logits], feature), "triplet") == Outputs((logits,), (feature,))


def test_softmax_model_for_a_metric_objective():
    with pytest.raises(ValueError, match="got Tensor. Build the model with loss='triplet'"):
        Outputs.of(torch.randn(4, 3), "triplet")


def test_accuracy_is_in_percent():
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 2])]
    assert accuracy(Outputs((logits,), ()), PIDS).item() == 75


def test_base_is_abstract():
    with pytest.raises(NotImplementedError):
        Objective()(outputs(), PIDS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_norm_of_half_precision_gradients_does_not_overflow(dtype):
    weight = nn.Parameter(torch.zeros(64, dtype=dtype))
    weight.grad = torch.full_like(weight, 3e4)
    assert gradient_norm(torch.optim.SGD([weight], 0.1)) == pytest.approx(8 * 3e4, rel=0.01)
