"""Ranking-based compatible loss."""

import math

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.utils._python_dispatch import TorchDispatchMode

import torchreid_ptl
from torchreid_ptl.losses import RBCLLoss, ranking, rbcl, rbcl_loss
from torchreid_ptl.losses.rbcl import agent_gallery, nearest_centres


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def oracle(query, gallery, query_pids, gallery_pids, tau=0.01, shift=None, same_image=(), junk=()):
    """Plain loops over queries, positives and gallery; ``shift`` is lift's largest lead."""
    total, counted = 0.0, 0
    for a, q in enumerate(query.tolist()):
        s = [cosine(q, g) for g in gallery.tolist()]
        left_out = {j for i, j in (*same_image, *junk) if i == a}
        positives = [j for j in range(len(s)) if gallery_pids[j] == query_pids[a] and j not in left_out]
        negatives = [j for j in range(len(s)) if gallery_pids[j] != query_pids[a] and j not in left_out]
        if not positives:
            continue
        value = 0.0
        for i in positives:
            c = 0.0
            if shift is not None and negatives:
                c = min(max(-max(s[j] - s[i] for j in negatives), 0.0), shift)
            among = 1 + sum(sigmoid((s[k] - s[i]) / tau) for k in positives if k != i)
            before = sum(sigmoid((s[j] - s[i] + c) / tau) for j in negatives)
            value += among / (among + before)
        total += value / len(positives)
        counted += 1
    return 1 - total / counted if counted else 0.0


def naive(query, gallery, query_pids, gallery_pids, tau=0.01, dgr="none", lift_limit=0.1, restore_from=0.03):
    """The formula with a tensor of all triples, gradient by autograd."""
    query, gallery = (torch.nn.functional.normalize(x, dim=1) for x in (query, gallery.detach()))
    s = query @ gallery.T
    positive = query_pids[:, None] == gallery_pids[None, :]
    d = s[:, None, :] - s[:, :, None]  # (query, i, j)
    self_pair = torch.eye(len(gallery), dtype=torch.bool)
    lead = (-d.masked_fill(positive[:, None, :], -math.inf).amax(dim=2)).clamp(0, lift_limit).detach()
    plain = torch.sigmoid((d + (lead[:, :, None] if dgr == "lift" else 0)) / tau)
    if dgr == "restore":
        held = torch.sigmoid((d + (d.clamp(max=restore_from) - d).detach()) / tau)
        before = held + (plain - held).detach()
    else:
        before = plain
    among = 1 + (torch.sigmoid(d / tau) * (positive[:, None, :] & ~self_pair)).sum(dim=2)
    beaten = (before * ~positive[:, None, :]).sum(dim=2)
    share = (among / (among + beaten) * positive).sum(dim=1) / positive.sum(dim=1)
    return 1 - share.mean()


def batch(queries=6, gallery=15, dim=5, identities=3, dtype=torch.float64):
    return (
        torch.randn(queries, dim, dtype=dtype),
        torch.randn(gallery, dim, dtype=dtype),
        torch.arange(queries) % identities,
        torch.arange(gallery) % identities,
    )


@pytest.mark.parametrize("tau", [0.01, 0.3])
@pytest.mark.parametrize("sizes", [(6, 15), (1, 4), (9, 3)])
def test_equals_the_oracle(tau, sizes):
    given = batch(*sizes)
    assert rbcl_loss(*given, tau).item() == pytest.approx(oracle(*given, tau), rel=1e-9)


@pytest.mark.parametrize("limit", [0.05, 0.1, 0.5])
def test_lift_equals_the_oracle(limit):
    given = batch()
    lifted = rbcl_loss(*given, dgr="lift", lift_limit=limit).item()
    assert lifted == pytest.approx(oracle(*given, shift=limit), rel=1e-9)
    assert lifted > rbcl_loss(*given).item()


@pytest.mark.parametrize("dgr", ["none", "lift", "restore"])
@pytest.mark.parametrize("tau", [0.01, 0.2])
def test_streaming_equals_the_naive_formula_in_value_and_gradient(dgr, tau, monkeypatch):
    given = batch(8, 40, 6)
    results = []
    for function, block in ((naive, None), (rbcl_loss, 1 << 20), (rbcl_loss, 100), (rbcl_loss, 1)):
        monkeypatch.setattr(ranking, "BLOCK", block)
        query = given[0].clone().requires_grad_()
        value = function(query, *given[1:], tau=tau, dgr=dgr)
        value.backward()
        results.append((value.detach(), query.grad))
    for value, gradient in results[1:]:
        torch.testing.assert_close(value, results[0][0], rtol=1e-10, atol=0)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-8, atol=1e-12)


def test_float32_is_within_its_rounding_of_float64():
    given = batch(16, 200, 32, identities=8)
    given = (given[0], given[0].repeat(13, 1)[:200] + 0.7 * given[1], given[2], given[3])
    results = []
    for dtype in (torch.float64, torch.float32):
        query = given[0].to(dtype).detach().requires_grad_()
        value = rbcl_loss(query, given[1].to(dtype), *given[2:], dgr="lift")
        value.backward()
        results.append((value.double(), query.grad.double()))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=2e-5, atol=1e-7)
    assert (results[1][1] - results[0][1]).norm() < 1e-4 * results[0][1].norm()


@pytest.mark.parametrize("dgr", ["none", "lift"])
def test_gradient(dgr):
    query, *rest = batch()
    query.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: 3 * rbcl_loss(q, *rest, tau=0.2, dgr="none"), query)
    if dgr == "lift":  # the lead is a constant where it is cut off at the limit, so that differences see none of it
        rest[0] = -query.detach().repeat(3, 1)[:15]
        same = torch.arange(6) % 3
        rest[0][:6] = query.detach() + 0.01
        rest[1:] = [same, torch.cat([same, torch.full((9,), 7)])]
        lifted = lambda q: rbcl_loss(q, *rest, tau=0.2, dgr="lift", lift_limit=1e-3)  # noqa: E731
        assert torch.autograd.gradcheck(lifted, query)


def test_tends_to_one_minus_average_precision():
    for seed in range(20):
        torch.manual_seed(seed)
        query, gallery, _, gallery_pids = batch(1, 30, 8, identities=4)
        scores = [cosine(query[0].tolist(), row) for row in gallery.tolist()]
        exact = average_precision_score((gallery_pids == 1).numpy(), scores)
        value = rbcl_loss(query, gallery, torch.tensor([1]), gallery_pids, tau=1e-7)
        assert value.item() == pytest.approx(1 - exact, abs=1e-9)


def test_the_mean_over_queries_is_the_mean_of_their_losses():
    query, gallery, query_pids, gallery_pids = batch()
    single = [rbcl_loss(query[i : i + 1], gallery, query_pids[i : i + 1], gallery_pids) for i in range(6)]
    torch.testing.assert_close(rbcl_loss(query, gallery, query_pids, gallery_pids), torch.stack(single).mean())


def test_the_same_image_is_neither_positive_nor_negative():
    query, gallery, query_pids, gallery_pids = batch(5, 9)
    mask = torch.zeros(5, 9, dtype=torch.bool)
    pairs = [(0, 0), (0, 3), (1, 1), (4, 7), (2, 0), (3, 4)]  # the last two of another identity
    for pair in pairs:
        mask[pair] = True
    masked = rbcl_loss(query, gallery, query_pids, gallery_pids, same_image=mask)
    assert masked.item() == pytest.approx(oracle(query, gallery, query_pids, gallery_pids, same_image=pairs), rel=1e-9)
    columns = torch.tensor([0, 1, -1, 3, 7])
    by_column = rbcl_loss(query, gallery, query_pids, gallery_pids, same_image=columns)
    pairs = [(0, 0), (1, 1), (3, 3), (4, 7)]
    expected = oracle(query, gallery, query_pids, gallery_pids, same_image=pairs)
    assert by_column.item() == pytest.approx(expected, rel=1e-9)


def test_positives_of_another_camera_only():
    query, gallery, query_pids, gallery_pids = batch(5, 12)
    query_camids, gallery_camids = torch.tensor([0, 1, 2, 0, 1]), torch.arange(12) // 3 % 3
    same = (query_pids[:, None] == gallery_pids) & (query_camids[:, None] == gallery_camids)
    value = rbcl_loss(
        query, gallery, query_pids, gallery_pids, query_camids=query_camids, gallery_camids=gallery_camids
    )
    expected = oracle(query, gallery, query_pids, gallery_pids, junk=same.nonzero().tolist())
    assert value.item() == pytest.approx(expected, rel=1e-9)


def slopes(lead, dgr, tau=0.01, **options):
    """Minus the gradient's part along one negative, for a positive that leads it by ``lead``; others stay far away."""
    positive, negative = 0.5, 0.5 - lead
    similarity = torch.tensor([[positive, negative, -0.9]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, False]])
    ranking.ranking_loss(similarity, mask, ~mask, tau, ranking.Reactivation(dgr, **options)).backward()
    return similarity.grad[0]


def test_plain_slopes_vanish_as_the_hyperbolic_secant_says():
    for gap, share in ((0.03, 0.18), (0.05, 0.027), (0.1, 2e-4)):
        d = torch.tensor(-gap, dtype=torch.float64, requires_grad=True)
        torch.sigmoid(d / 0.01).backward()
        assert d.grad.item() * 4 * 0.01 == pytest.approx(share, rel=0.1)
        n = torch.sigmoid(d.detach() / 0.01).item()
        assert slopes(gap, "none")[1].item() == pytest.approx(d.grad.item() / (1 + n) ** 2, rel=1e-6)


def test_lift_puts_the_hardest_negative_on_the_steepest_point():
    for gap in (0.0, 0.02, 0.05, 0.1):
        assert slopes(gap, "lift")[1].item() == pytest.approx(1 / (4 * 0.01) / 1.5**2, rel=1e-6)


def test_lift_equals_the_plain_loss_while_the_positive_is_beaten():
    for gap in (-0.3, -0.02, 0.0):
        assert torch.equal(slopes(gap, "lift"), slopes(gap, "none"))


def test_lift_switches_itself_off_beyond_its_limit():
    beyond = slopes(0.15, "lift", lift_limit=0.1)
    torch.testing.assert_close(beyond[1], slopes(0.05, "none")[1])
    assert slopes(0.4, "lift")[1] < 1e-10


def test_lift_keeps_the_order_of_negatives():
    similarity = torch.tensor([[0.8, 0.79, 0.77, 0.74, 0.1]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, False, False, False]])
    ranking.ranking_loss(similarity, mask, ~mask, 0.01, ranking.Reactivation("lift")).backward()
    among = similarity.grad[0, 1:]
    assert (among[:-1] > among[1:]).all()
    assert (among >= 0).all()


def test_restore_leaves_the_value_bit_by_bit():
    for seed in range(5):
        torch.manual_seed(seed)
        given = batch(20, 300, 16, identities=7, dtype=torch.float32)
        assert torch.equal(rbcl_loss(*given, dgr="restore"), rbcl_loss(*given, dgr="none"))


def test_restore_holds_the_slope_of_negatives_that_lead():
    held = math.exp(3) / (1 + math.exp(3)) ** 2 / 0.01  # the slope at m = 0.03
    for lead in (-0.03, -0.05, -0.3):
        n = sigmoid(-lead / 0.01)
        assert slopes(lead, "restore")[1].item() == pytest.approx(held / (1 + n) ** 2, rel=1e-6)
    for lead in (-0.02, 0.0, 0.04):
        torch.testing.assert_close(slopes(lead, "restore"), slopes(lead, "none"))


def test_only_negatives_are_reactivated():
    query, gallery, pids, _ = batch(4, 6)
    same = torch.zeros(6, dtype=torch.long)
    for dgr in ("lift", "restore"):
        assert rbcl_loss(query, gallery, torch.zeros(4), same, dgr=dgr).item() == 0


def test_a_perfect_ranking_costs_nothing_and_the_worst_nearly_everything():
    eye = torch.eye(4)
    assert rbcl_loss(eye, eye, torch.arange(4), torch.arange(4)).item() == pytest.approx(0, abs=1e-6)
    many = torch.cat([-eye[:1], eye[:1].repeat(99, 1)])
    worst = rbcl_loss(eye[:1], many, torch.tensor([0]), torch.cat([torch.tensor([0]), torch.ones(99)]))
    assert worst.item() == pytest.approx(0.99)


def test_queries_without_a_positive_are_left_out():
    query, gallery, query_pids, gallery_pids = batch()
    alone = torch.cat([query_pids[:5], torch.tensor([99])])
    torch.testing.assert_close(
        rbcl_loss(query, gallery, alone, gallery_pids), rbcl_loss(query[:5], gallery, alone[:5], gallery_pids)
    )
    query.requires_grad_()
    none = rbcl_loss(query, gallery, query_pids + 50, gallery_pids)
    none.backward()
    assert none.item() == 0
    assert torch.equal(query.grad, torch.zeros_like(query))


def test_a_gallery_of_positives_only():
    query, gallery, *_ = batch(dtype=torch.float32)
    query.requires_grad_()
    for dgr in ("none", "lift", "restore"):
        loss = rbcl_loss(query, gallery, torch.zeros(6), torch.zeros(15), dgr=dgr)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(query.grad, torch.zeros_like(query))


def test_no_gradient_into_the_gallery():
    query, gallery, query_pids, gallery_pids = batch()
    gallery.requires_grad_()
    query.requires_grad_()
    rbcl_loss(query, gallery, query_pids, gallery_pids).backward()
    assert gallery.grad is None
    assert query.grad.abs().sum() > 0


def test_order_of_queries_and_gallery_does_not_matter():
    query, gallery, query_pids, gallery_pids = batch()
    q, g = torch.randperm(6), torch.randperm(15)
    torch.testing.assert_close(
        rbcl_loss(query, gallery, query_pids, gallery_pids),
        rbcl_loss(query[q], gallery[g], query_pids[q], gallery_pids[g]),
    )


def test_a_length_of_features_plays_no_part():
    query, gallery, *pids = batch()
    torch.testing.assert_close(rbcl_loss(7 * query, 0.1 * gallery, *pids), rbcl_loss(query, gallery, *pids))


class Largest(TorchDispatchMode):
    """Notes the numbers of the largest tensor an operation made."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, (tuple, list)) else [result]:
            self.largest = max(self.largest, item.numel() if isinstance(item, torch.Tensor) else 0)
        return result


@pytest.mark.parametrize("dgr", ["none", "lift", "restore"])
def test_no_tensor_grows_with_the_number_of_positives(dgr, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK", 4000)
    query, gallery = torch.randn(8, 4, requires_grad=True), torch.randn(900, 4)
    with Largest() as seen:
        rbcl_loss(query, gallery, torch.arange(8) % 3, torch.arange(900) % 3, dgr=dgr).backward()
    assert seen.largest == 8 * 900


# ---- the module


def bank(identities=5, of_each=4, dim=6):
    """Old features of a training set, and a batch out of it in which one image stands twice."""
    pids = torch.arange(identities).repeat_interleave(of_each)
    features = torch.randn(len(pids), dim)
    ids = torch.tensor([0, 1, 1, 5, 6, 9])
    return features, pids, ids, torch.randn(len(ids), dim)


def test_full_equals_batch_when_the_gallery_is_the_batch():
    old, pids, ids, new = bank()
    given = (new, old[ids], pids[ids])
    plain = RBCLLoss("batch")(*given, image_ids=ids)
    full = RBCLLoss("full")(*given, image_ids=ids, gallery=old[ids], gallery_pids=pids[ids], gallery_image_ids=ids)
    assert torch.equal(plain, full)
    same = [(a, b) for a in range(6) for b in range(6) if ids[a] == ids[b]]
    expected = oracle(new, old[ids], pids[ids], pids[ids], same_image=same)
    assert plain.item() == pytest.approx(expected, rel=1e-4)


def test_without_image_ids_the_batch_leaves_out_each_image_itself():
    old, pids, _, _ = bank()
    new = torch.randn(20, 6)
    expected = rbcl_loss(new, old, pids, pids, same_image=torch.eye(20, dtype=torch.bool))
    assert torch.equal(RBCLLoss("batch")(new, old, pids), expected)
    assert torch.equal(RBCLLoss("batch")(new, old, pids, image_ids=torch.arange(20)), expected)


def test_images_without_a_row_in_the_bank_are_different_ones():
    old, pids, ids, new = bank()
    unknown, distinct = torch.tensor([0, -1, -1, 5, 6, -1]), torch.arange(6)
    given = (new, old[ids], pids[ids])
    assert torch.equal(RBCLLoss("batch")(*given, image_ids=unknown), RBCLLoss("batch")(*given, image_ids=distinct))


def test_full_ranks_against_the_whole_bank():
    old, pids, ids, new = bank()
    value = RBCLLoss("full")(
        new, old[ids], pids[ids], image_ids=ids, gallery=old, gallery_pids=pids, gallery_image_ids=torch.arange(20)
    )
    same = list(enumerate(ids.tolist()))
    assert value.item() == pytest.approx(oracle(new, old, pids[ids], pids, same_image=same), rel=1e-4)


def test_another_camera_in_the_batch_and_in_the_bank():
    old, pids, ids, new = bank()
    camids = torch.arange(20) % 2
    given = {"image_ids": ids, "camids": camids[ids]}
    value = RBCLLoss("batch", other_camera=True)(new, old[ids], pids[ids], **given)
    same = (pids[ids][:, None] == pids[ids]) & (camids[ids][:, None] == camids[ids])
    assert value.item() == pytest.approx(
        oracle(new, old[ids], pids[ids], pids[ids], junk=same.nonzero().tolist()), rel=1e-4
    )
    whole = {"gallery": old, "gallery_pids": pids, "gallery_image_ids": torch.arange(20), "gallery_camids": camids}
    value = RBCLLoss("full", other_camera=True)(new, old[ids], pids[ids], **given, **whole)
    same = (pids[ids][:, None] == pids) & (camids[ids][:, None] == camids)
    assert value.item() == pytest.approx(oracle(new, old, pids[ids], pids, junk=same.nonzero().tolist()), rel=1e-4)


def test_what_each_gallery_needs():
    assert RBCLLoss("batch").needs == ()
    assert RBCLLoss("nca").needs == ("class_means",)
    assert RBCLLoss("full").needs == ("image_ids", "gallery", "gallery_pids", "gallery_image_ids")
    assert RBCLLoss("full", other_camera=True).needs[-2:] == ("camids", "gallery_camids")
    assert RBCLLoss("batch", other_camera=True).needs == ("camids",)


# ---- neighbour agents


def test_nearest_centres_equal_a_loop():
    centres = torch.randn(9, 4)
    centres[3] = float("nan")
    for rows in (1, 4, 100):
        got = nearest_centres(centres, 3, rows=rows)
        for c in range(9):
            if c == 3:
                assert got[c].tolist() == [-1, -1, -1]
                continue
            others = [k for k in range(9) if k not in (c, 3)]
            best = sorted(others, key=lambda k: -cosine(centres[c].tolist(), centres[k].tolist()))[:3]
            assert got[c].tolist() == best


def test_fewer_centres_than_neighbours():
    got = nearest_centres(torch.randn(3, 4), 10)
    assert got.shape == (3, 10)
    assert (got[:, 2:] == -1).all()
    assert {tuple(sorted(row[:2].tolist())) for row in got} == {(1, 2), (0, 2), (0, 1)}


def test_agents_join_as_negatives_and_never_as_positives():
    old, pids, ids, new = bank()
    centres = torch.stack([old[pids == c].mean(dim=0) for c in range(5)])
    gallery, gallery_pids, is_agent = agent_gallery(old[ids], pids[ids], centres, nearest_centres(centres, 2))
    agents = {int(k) for c in set(pids[ids].tolist()) for k in nearest_centres(centres, 2)[c]}
    assert gallery_pids[is_agent].tolist() == sorted(agents)
    assert torch.equal(gallery[: len(ids)], old[ids])
    assert torch.equal(gallery[is_agent], centres[sorted(agents)])
    value = RBCLLoss("nca", neighbours=2)(new, old[ids], pids[ids], class_means=centres, image_ids=ids)
    left_out = [(a, b) for a in range(6) for b in range(6) if ids[a] == ids[b]]
    for a in range(6):
        left_out += [(a, b) for b in range(6, len(gallery)) if gallery_pids[b] == pids[ids][a]]
    expected = oracle(new, gallery, pids[ids], gallery_pids, same_image=left_out)
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_the_nearest_centres_are_found_once_for_a_set_of_class_means(monkeypatch):
    """With the K of the loss, which is the only one."""
    old, pids, ids, new = bank()
    centres, found = torch.stack([old[pids == c].mean(dim=0) for c in range(5)]), []
    monkeypatch.setattr(rbcl, "nearest_centres", lambda means, k: found.append(k) or nearest_centres(means, k))
    loss = RBCLLoss("nca", neighbours=2)
    given = {"new": new, "old": old[ids], "pids": pids[ids], "image_ids": ids}
    first = loss(**given, class_means=centres)
    assert torch.equal(loss(**given, class_means=centres), first)
    assert found == [2]
    moved = centres.roll(1, dims=0)
    assert torch.equal(loss(**given, class_means=moved), RBCLLoss("nca", neighbours=2)(**given, class_means=moved))
    assert found == [2, 2, 2]


def test_agents_of_identities_without_old_features_are_left_out():
    old, pids, ids, new = bank()
    centres = torch.full((5, 6), float("nan"))
    value = RBCLLoss("nca")(new, old[ids], pids[ids], class_means=centres, image_ids=ids)
    assert torch.equal(value, RBCLLoss("batch")(new, old[ids], pids[ids], image_ids=ids))


def test_agents_follow_the_whole_bank_better_than_the_batch():
    torch.manual_seed(1)
    means = torch.nn.functional.normalize(torch.randn(200, 16), dim=1)
    pids = torch.arange(200).repeat_interleave(6)
    old = means[pids] + 0.1 * torch.randn(1200, 16)
    ids = torch.cat([torch.arange(4) + 6 * c for c in range(16)])
    new = old[ids] + 0.1 * torch.randn(64, 16)
    given = {"new": new, "old": old[ids], "pids": pids[ids], "image_ids": ids}
    full = RBCLLoss("full")(**given, gallery=old, gallery_pids=pids, gallery_image_ids=torch.arange(1200))
    centres = torch.stack([old[pids == c].mean(dim=0) for c in range(200)])
    nca = RBCLLoss("nca")(**given, class_means=centres)
    batch_only = RBCLLoss("batch")(**given)
    assert abs(nca - full) < abs(batch_only - full)


# ---- errors


def test_settings_out_of_range():
    given = batch()
    with pytest.raises(ValueError, match="tau is 0"):
        rbcl_loss(*given, tau=0)
    with pytest.raises(ValueError, match="dgr is 'raise'.*none, lift, restore"):
        rbcl_loss(*given, dgr="raise")
    with pytest.raises(ValueError, match="lift_limit"):
        RBCLLoss(lift_limit=-1)
    with pytest.raises(ValueError, match="restore_from"):
        RBCLLoss(restore_from=-1)
    with pytest.raises(ValueError, match="gallery is 'all'.*batch, nca, full"):
        RBCLLoss("all")
    with pytest.raises(ValueError, match="neighbours is 0"):
        RBCLLoss("nca", neighbours=0)


def test_shapes_that_do_not_fit():
    query, gallery, query_pids, gallery_pids = batch()
    with pytest.raises(ValueError, match=r"got \(6, 5\), \(15, 5\), \(5,\) and \(15,\)"):
        rbcl_loss(query, gallery, query_pids[:5], gallery_pids)
    with pytest.raises(ValueError, match="have 5 dimensions and old ones 4"):
        rbcl_loss(query, gallery[:, :4], query_pids, gallery_pids)
    with pytest.raises(ValueError, match=r"same_image .* got \(6, 14\)"):
        rbcl_loss(query, gallery, query_pids, gallery_pids, same_image=torch.zeros(6, 14, dtype=torch.bool))
    with pytest.raises(ValueError, match="both cameras or none"):
        rbcl_loss(query, gallery, query_pids, gallery_pids, query_camids=query_pids)
    gallery[2, 1] = float("inf")
    with pytest.raises(ValueError, match="1 of 15 rows of the gallery are not finite"):
        rbcl_loss(query, gallery, query_pids, gallery_pids)


def test_public_names():
    assert torchreid_ptl.losses.rbcl_loss is rbcl_loss
    assert torchreid_ptl.losses.RBCLLoss is RBCLLoss
