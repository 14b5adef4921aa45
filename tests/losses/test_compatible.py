"""What every loss of backward-compatible training must do; a registered loss is tested here."""

import copy
import functools

import pytest
import torch

import torchreid_ptl
from torchreid_ptl import losses
from torchreid_ptl.losses import CompatibleLoss, compatible
from torchreid_ptl.losses.compatible import l2_normalize
from torchreid_ptl.registration import LOSSES as REGISTERED

B, D, C, G = 12, 8, 6, 40
SUPPLIED = {"dim": D, "num_classes": C, "seed": 0}
VARIANTS = {
    "advbct": [{"boundary": "learned"}],
    "nccl": [{"queue_size": 16}, {"logit_weight": 0.01, "credible": "entropy"}],
    "bct": [{"prototypes": "classifier"}, {"prototypes": "classifier", "scale": None}, {"prototypes": "means"}],
    "mixbct": [{"credible": torch.arange(G) % 3 > 0}],
    "rbcl": [
        {"gallery": "batch"},
        {"gallery": "nca", "dgr": "lift", "neighbours": 2, "other_camera": True},
        {"dgr": "restore", "other_camera": True},
    ],
}
BUILD = {
    f"{name}-{number}": functools.partial(losses.build_loss, name, settings, **SUPPLIED)
    for name in losses.registered_losses()
    for number, settings in enumerate([{}, *VARIANTS.get(name, [])])
}
DRAWS = ("mixbct",)  # the order of the batch decides what is drawn
DETACHED = ("old", "class_means", "gallery", "old_classifier")


def given_for(loss, dtype=torch.float32):
    """Everything a training loop can supply, cut down to what the loss asks for."""
    pids = torch.arange(B) // 3
    gallery_pids = torch.arange(G) % C
    everything = {
        "camids": torch.arange(B) % 2,
        "image_ids": torch.arange(B),
        "class_means": torch.randn(C, D).to(dtype),
        "old_classifier": torch.randn(9, D).to(dtype),
        "old_classes": torch.tensor([4, 8, -1, 0, 2, -1]),
        "classifier": torch.randn(C, D).to(dtype),
        "gallery": torch.randn(G, D).to(dtype),
        "gallery_pids": gallery_pids,
        "gallery_image_ids": torch.arange(G),
        "gallery_camids": torch.arange(G) % 3,
    }
    asked = {name: everything[name] for name in (*loss.needs, *loss.accepts)}
    return {"new": torch.randn(B, D).to(dtype), "old": torch.randn(B, D).to(dtype), "pids": pids, **asked}


@pytest.fixture(params=sorted(BUILD))
def built(request):
    loss = BUILD[request.param]()
    loss.built_by = BUILD[request.param]
    return loss, given_for(loss)


def test_all_are_registered_and_public():
    modules = {item for item in vars(losses).values() if isinstance(item, type) and issubclass(item, CompatibleLoss)}
    modules.remove(CompatibleLoss)
    registered = losses.registered_losses()
    assert modules == set(registered.values())
    assert modules <= set(REGISTERED)
    assert {item.__name__ for item in modules} <= set(torchreid_ptl.losses.__all__)
    assert [item.name for item in registered.values()] == list(registered)


def test_a_scalar_that_reaches_the_new_features(built):
    loss, given = built
    given["new"].requires_grad_()
    value = loss(**given)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert given["new"].grad.isfinite().all()
    assert given["new"].grad.abs().sum() > 0


def test_no_gradient_into_what_is_old(built):
    loss, given = built
    frozen = [given[name].requires_grad_() for name in DETACHED if name in given]
    given["new"].requires_grad_()
    loss(**given).backward()
    assert all(item.grad is None for item in frozen)


def test_float64_stays_whatever_the_parameters_are(built):
    loss, _ = built
    assert loss(**given_for(loss, torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(built, dtype):
    loss, _ = built
    given = given_for(loss, dtype)
    exact = {name: item.float() if item.is_floating_point() else item for name, item in given.items()}
    twin = copy.deepcopy(loss)
    given["new"].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(**given)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.equal(value, twin(**exact))
    assert given["new"].grad.dtype == dtype


def test_order_of_the_batch_does_not_matter(built):
    loss, given = built
    if loss.name in DRAWS:
        pytest.skip("draws samples by their place in the batch; its own tests cover ratio 0")
    order = torch.randperm(B)
    moved = {n: given[n][order] if n in ("new", "old", "pids", "camids", "image_ids") else given[n] for n in given}
    twin = copy.deepcopy(loss)
    torch.testing.assert_close(loss(**given), twin(**moved))


EXTREME = {
    "zero": lambda x: x * 0,
    "one zero row": lambda x: torch.cat([x[:1] * 0, x[1:]]),
    "equal": lambda x: x[:1].expand_as(x),
    "huge": lambda x: x.sign() * 6e4,
    "tiny": lambda x: x.sign() * 1e-7,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_value_and_gradient_of_extreme_features_are_bounded(built, dtype):
    loss, _ = built
    for case, of in EXTREME.items():
        for changed in (["new"], ["old"], ["new", "old"]):
            given = given_for(loss, dtype)
            given |= {name: of(given[name]).clone() for name in changed}
            loss.zero_grad()
            value = loss(**given | {"new": given["new"].requires_grad_()})
            value.backward()
            lengths = given["new"].detach().double().norm(dim=1)
            shortest = min(lengths[lengths > 0].tolist(), default=1.0)
            gradients = [given["new"].grad, *(parameter.grad for parameter in loss.parameters())]
            assert value.isfinite(), (case, changed)
            for gradient in (each for each in gradients if each is not None):
                assert gradient.isfinite().all(), (case, changed)
                assert gradient.double().abs().max() <= 1e4 * max(1, 1 / shortest), (case, changed)


@pytest.mark.parametrize(
    ("dtype", "short"),
    [(torch.float16, 1e-4), (torch.bfloat16, 1e-12), (torch.float32, 1e-12), (torch.float64, 1e-17)],
)
def test_the_direction_of_a_short_row_is_exact_and_has_no_gradient(dtype, short):
    rows = torch.tensor([[3.0, 4.0], [3 * short, 4 * short], [0, 0]], dtype=dtype, requires_grad=True)
    unit = l2_normalize(rows)
    unit.sum().backward()
    exact = rows.detach().double()[:2] / rows.detach().double()[:2].norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit[:2].double(), exact, rtol=1e-6, atol=1e-6)
    assert unit[2].tolist() == [0, 0]
    assert (rows.grad[0] != 0).any()
    assert rows.grad[1:].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_of_one_identity_is_finite(built, size):
    loss, given = built
    small = {n: given[n][:size] if n in ("new", "old", "pids", "camids", "image_ids") else given[n] for n in given}
    small["new"].requires_grad_()
    value = loss(**small)
    value.backward()
    assert value.isfinite()
    assert small["new"].grad.isfinite().all()


def test_different_dimensions_name_both_and_the_remedies(built):
    loss, given = built
    with pytest.raises(
        ValueError, match=r"have 8 dimensions and old ones 7.*embedding head of 7.*truncate or zero-pad"
    ):
        loss(**{**given, "old": given["old"][:, :7]})


def test_old_features_that_are_not_finite_are_counted(built):
    loss, given = built
    given["old"][[1, 4], 2] = float("nan")
    given["old"][4, 3] = float("inf")
    with pytest.raises(ValueError, match="2 of 12 rows of the old features are not finite"):
        loss(**given)


def test_a_batch_is_checked_once(built, monkeypatch):
    loss, given = built
    looked, check = [], compatible.check_finite
    monkeypatch.setattr(compatible, "check_finite", lambda *given: looked.append(1) or check(*given))
    loss(**given)
    assert len(looked) == 1
    with pytest.raises(ValueError, match="2 of 12 rows"):  # another one is looked at
        compatible.check_batch(given["new"], given["old"].index_fill(0, torch.tensor([0, 1]), torch.nan))


def test_wrong_shapes(built):
    loss, given = built
    with pytest.raises(ValueError, match=r"got \(12, 8\), \(12, 8\) and \(11,\)"):
        loss(**{**given, "pids": given["pids"][:11]})
    with pytest.raises(ValueError, match=r"got \(12, 8\), \(11, 8\)"):
        loss(**{**given, "old": given["old"][:11]})


def test_what_is_missing_or_foreign_is_named(built):
    loss, given = built
    with pytest.raises(ValueError, match="given and not used: pidz"):
        loss(**given, pidz=given["pids"])
    for name in loss.needs:
        with pytest.raises(ValueError, match=f"missing: {name}; given"):
            loss(**{**given, name: None})


def test_settings_and_state_survive_a_checkpoint(built):
    loss, given = built
    loss(**given)
    twin = loss.built_by()
    twin.load_state_dict(loss.state_dict())
    assert torch.equal(loss(**given), twin(**given))
