"""Backward-compatible training: the old side is looked up and never changed, the rest is any training."""

import copy

import pytest
import torch
import torchreid
from torch import nn

from torchreid_ptl import losses
from torchreid_ptl.data.in_order import root_of, training_images
from torchreid_ptl.data.old_features import BankError, OldFeatures, names_of
from torchreid_ptl.engines import (
    ClusterObjective,
    CompatibleObjective,
    FeatureObjective,
    ImageCompatibleEngine,
    ImagePTLEngine,
    MarginSoftmaxObjective,
    MGNObjective,
    OldGallery,
    OldModel,
    Outputs,
    Preprocessing,
    SoftmaxObjective,
    build_bank,
)
from torchreid_ptl.evaluation import Descriptors, EvaluationOptions, evaluate_ranking
from torchreid_ptl.losses.rbcl import nearest_centres
from torchreid_ptl.runtime import lock
from torchreid_ptl.runtime.checkpoint import CheckpointError, load_checkpoint
from torchreid_ptl.runtime.lock import InUseError

STYLE = Preprocessing(64, 32)
OTHER = Preprocessing(48, 24, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def sgd(*modules):
    return torch.optim.SGD([p for module in modules for p in module.parameters()], lr=0.01, momentum=0.9)


def build(name="osnet_x0_25", loss="triplet", num_classes=4, seed=5):
    torch.manual_seed(seed)
    return torchreid.models.build_model(name, num_classes, loss=loss, pretrained=False, use_gpu=False)


def old_network(seed=3):
    return build("osnet_x0_25", "softmax", 7, seed)


def engine_of(manager, loss=None, old=None, student=None, **options):
    loss = loss or losses.RBCLLoss("full")
    student = student or build()
    criteria = loss.values() if isinstance(loss, dict) else [loss]
    old = old or old_network()
    return ImageCompatibleEngine(manager, student, sgd(student, *criteria), old, loss, use_gpu=False, **options)


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def bank_of(manager, features, drop=()):
    """A bank of given features (16, D) of the training images, without some of them."""
    names = names_of([image[0] for image in training_images(manager)], root_of(manager))
    kept = [row for row in range(len(names)) if row not in drop]
    return OldFeatures([names[row] for row in kept], features[kept], "drawn")


@pytest.fixture
def features():
    return torch.randn(16, 512)


# the old model and its bank


@pytest.mark.parametrize("wants", [STYLE, OTHER])
def test_old_features_are_the_old_descriptors_of_plain_images(tiny_manager, wants):
    """In the old model's size, as the host's test loader would give the images, whatever augments the training."""
    manager = tiny_manager(transforms=["random_flip", "random_crop", "random_erase"])
    old = OldModel(old_network(), wants)
    bank = build_bank(old, manager)
    host = torchreid.data.transforms.build_transforms(
        wants.height, wants.width, [], norm_mean=list(wants.mean), norm_std=list(wants.std)
    )[1]
    plain = old_network().eval()
    for row, (path, *_) in enumerate(training_images(manager)):
        image = host(torchreid.utils.read_image(path))
        with torch.no_grad():
            torch.testing.assert_close(bank.features[row], plain(image[None])[0], rtol=1e-4, atol=1e-5)


def test_a_bank_is_built_once(tiny_manager, tmp_path, capsys):
    path = tmp_path / "old.npy"
    first = build_bank(OldModel(old_network(), STYLE), tiny_manager(), path)
    assert "old features [1/1]" in capsys.readouterr().out
    again = OldModel(old_network(), STYLE)
    again.network.register_forward_hook(lambda *_: pytest.fail("computed again"))
    second = build_bank(again, tiny_manager(), path)
    assert f"Old features: 16 of {path}" in capsys.readouterr().out
    assert torch.equal(first.features, second.features)
    assert first.names == second.names
    assert first.fingerprint == second.fingerprint


def test_a_bank_of_something_else_is_refused_or_replaced(tiny_manager, tmp_path, capsys):
    path = tmp_path / "old.npy"
    manager = tiny_manager()
    build_bank(OldModel(old_network(), STYLE), manager, path)
    before = path.read_bytes()
    fewer = tiny_manager()
    fewer.train_loader.dataset.dataset.data = training_images(manager)[:12]
    others = [
        (OldModel(old_network(seed=4), STYLE), manager),
        (OldModel(old_network(), OTHER), manager),
        (OldModel(old_network(), STYLE), fewer),
    ]
    for old, images in others:
        with pytest.raises(BankError, match="another old model, preprocessing or list of images"):
            build_bank(old, images, path)
    assert path.read_bytes() == before
    bank = build_bank(*others[0], path, keep=False)
    assert f"{path} is replaced" in capsys.readouterr().out
    assert torch.equal(bank.features, build_bank(*others[0]).features)
    path.with_suffix(".json").unlink()  # an array of somebody's own looks like this
    before = path.read_bytes()
    with pytest.raises(BankError, match="is no bank of old features"):
        build_bank(*others[0], path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [True, False])
def test_a_file_of_somebody_else_is_seen_before_features_are_computed(tiny_manager, tmp_path, keep):
    listed = tmp_path / "old.json"
    listed.write_text('{"mine": 1}')
    old = OldModel(old_network(), STYLE)
    old.network.register_forward_hook(lambda *_: pytest.fail("computed"))
    with pytest.raises(BankError, match="is no list of a bank"):
        build_bank(old, tiny_manager(), tmp_path / "old.npy", keep)
    assert listed.read_text() == '{"mine": 1}'


def test_building_a_bank_draws_nothing(tiny_manager):
    old, manager = OldModel(old_network(), STYLE), tiny_manager()
    state = torch.get_rng_state()
    build_bank(old, manager)
    assert torch.equal(state, torch.get_rng_state())


def test_an_old_model_that_gives_what_is_not_finite(tiny_manager):
    network = old_network()
    with torch.no_grad():
        network.fc[0].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite descriptors for .*0001_c1_000"):
        build_bank(OldModel(network, STYLE), tiny_manager())


def test_a_classifier_of_another_dimension():
    with pytest.raises(ValueError, match=r"weights \(7, 9\) and the old descriptor 512"):
        OldModel(old_network(), STYLE, classifier=torch.zeros(7, 9))


def test_an_image_that_is_listed_twice_is_named(tiny_manager):
    manager = tiny_manager()
    listed = manager.train_loader.dataset.dataset
    listed.data = [*listed.data, listed.data[0]]
    with pytest.raises(ValueError, match=r"lists drawn_pedestrians_tiny/.*0001_c1_000\.jpg twice"):
        build_bank(OldModel(old_network(), STYLE), manager)


# the old side


def test_the_old_side_against_plain_loops(tiny_manager, features):
    manager = tiny_manager()
    images = training_images(manager)
    missing = {1, 8, 9, 10, 11}  # one image of the first identity, and the third altogether
    order = [row for row in torch.randperm(16).tolist() if row not in missing]
    names = names_of([image[0] for image in images], root_of(manager))
    side = OldGallery(OldFeatures([names[row] for row in order], features[order]), manager)
    held = [row for row in range(16) if row not in missing]
    assert torch.equal(side.gallery, features[held])
    assert side.gallery_pids.tolist() == [images[row][1] for row in held]
    assert side.gallery_camids.tolist() == [images[row][2] for row in held]
    assert side.gallery_image_ids.tolist() == list(range(11))
    assert (side.num_classes, side.dim) == (4, 512)
    means = []
    for pid in range(4):
        own = [features[row] / features[row].norm() for row in held if images[row][1] == pid]
        means.append(sum(own) / len(own) if own else torch.full((512,), torch.nan))
    torch.testing.assert_close(side.class_means, torch.stack(means), equal_nan=True)


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_neighbours_is_the_losses_own(tiny_manager, features, count):
    manager = tiny_manager()
    engine = engine_of(manager, losses.RBCLLoss("nca", neighbours=count), bank_of(manager, features))
    batch = next(iter(manager.train_loader))
    side, (_, new) = engine.objective.old, copy.deepcopy(engine.model).train()(batch["img"])
    old, gallery = side.batch(batch), nearest_centres(side.class_means, count)
    ids, pids = old.image_ids, batch["pid"]
    agents = sorted({int(near) for pid in pids.tolist() for near in gallery[pid] if near >= 0})
    everyone = torch.cat([pids, torch.tensor(agents)])
    own = torch.cat([ids, torch.full((len(agents),), -1)])
    left_out = (ids[:, None] == own) | ((own < 0) & (pids[:, None] == everyone))
    ranked = torch.cat([old.features, side.class_means[agents]])
    expected = 5 * losses.rbcl_loss(new, ranked, pids, everyone, same_image=left_out)
    assert engine.forward_backward(batch)["loss_rbcl"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_old_side_of_a_batch(tiny_manager, features):
    manager = tiny_manager(transforms=[])
    images = training_images(manager)
    side = OldGallery(bank_of(manager, features, drop=[0, 5]), manager)
    for batch in manager.train_loader:
        old = side.batch(batch)
        for place, path in enumerate(batch["impath"]):
            (row,) = [index for index, image in enumerate(images) if image[0] == path]
            if row in (0, 5):
                assert old.image_ids[place] == -1
                assert not old.features[place].any()
            else:
                assert torch.equal(old.features[place], features[row])
                assert torch.equal(side.gallery[old.image_ids[place]], features[row])
                assert side.gallery_pids[old.image_ids[place]] == batch["pid"][place]
        assert torch.equal(old.camids, batch["camid"])


def test_pseudo_labels(tiny_manager, features):
    """Fewer images, under other numbers; one that the bank lacks among them."""
    manager = tiny_manager()
    images = training_images(manager)
    classifier = torch.randn(7, 512)
    classes = torch.tensor([6, -1, 2, 3])
    side = OldGallery(bank_of(manager, features, drop=[4]), manager, classifier, classes)
    assert not side.update_labels(manager)
    means = side.class_means
    kept = [12, 13, 4, 5, 0, 1, 2, 9]  # of the identities 3, 3, 1, 1, 0, 0, 0, 2
    renumbered = [0, 0, 1, 1, 2, 2, 1, 2]
    manager.train_loader.dataset.dataset.data = [
        (images[row][0], pid, *images[row][2:]) for row, pid in zip(kept, renumbered, strict=True)
    ]
    assert side.update_labels(manager)
    assert torch.equal(side.gallery, features[[12, 13, 5, 0, 1, 2, 9]])
    assert side.gallery_pids.tolist() == [0, 0, 1, 2, 2, 1, 2]
    assert side.class_means.shape == means.shape == (4, 512)  # as the new model's classifier
    assert side.class_means[3].isnan().all()
    unit = nn.functional.normalize(features, dim=1)
    torch.testing.assert_close(side.class_means[:2], torch.stack([unit[[12, 13]].mean(0), unit[[5, 2]].mean(0)]))
    assert side.old_classes.tolist() == [3, -1, -1, -1]  # 1: of two minds; 2: of two classes
    old = side.batch({"impath": [images[12][0], images[4][0], images[15][0]], "camid": torch.zeros(3)})
    assert old.image_ids.tolist() == [0, -1, -1]
    manager.train_loader.dataset.dataset.data = images
    assert side.update_labels(manager)
    assert side.old_classes.tolist() == classes.tolist()
    assert torch.equal(side.class_means, means)


def test_pseudo_labels_reach_the_losses(tiny_manager, features):
    manager = tiny_manager()

    class Clustering(SoftmaxObjective):
        model_loss = "triplet"

        def begin_epoch(self, engine):
            dataset = engine.datamanager.train_loader.dataset.dataset
            dataset.data = dataset.data[:8]

    loss = losses.MixBCTLoss(4, 512)
    engine = engine_of(manager, loss, bank_of(manager, features), base=Clustering())
    assert len(loss.credible) == 16
    engine.objective.begin_epoch(engine)
    assert len(loss.credible) == len(engine.objective.old.gallery) == 8


def test_an_old_side_that_fits_nothing(tiny_manager, features):
    manager = tiny_manager()
    stranger = OldFeatures(["x.jpg"], features[:1])
    with pytest.raises(ValueError, match=r"None of the 16 training images has an old feature.*'x\.jpg' for example"):
        OldGallery(stranger, manager)
    bank = bank_of(manager, features)
    with pytest.raises(ValueError, match="needs its row for each training identity"):
        OldGallery(bank, manager, torch.zeros(7, 512))
    for classes in (torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 7])):
        with pytest.raises(ValueError, match=r"classes must be \(4,\), a row of the 7 of the old classifier"):
            OldGallery(bank, manager, torch.zeros(7, 512), classes)


def test_dimensions(tiny_manager, features):
    manager = tiny_manager()
    for rule, dim, common in (("truncate", 300, 300), ("truncate", 600, 512), ("pad", 300, 512), ("pad", 600, 600)):
        side = OldGallery(bank_of(manager, features), manager, torch.ones(7, 512), torch.tensor([0, 1, 2, -1]))
        before = side.class_means
        assert side.resize(dim, rule) == common
        assert side.resize(dim, rule) == common  # again, without harm
        assert side.gallery.shape == (16, common)
        shared = min(common, 512)
        assert torch.equal(side.gallery[:, :shared], features[:, :shared])
        assert not side.gallery[:, shared:].any()
        assert side.old_classifier.shape == (7, common)
        assert side.class_means.shape == (4, common)
        if common >= 512:
            torch.testing.assert_close(side.class_means[:, :512], before)
    with pytest.raises(ValueError, match="dimensions is 'cut'; allowed: error, truncate, pad"):
        side.resize(512, "cut")


# the engine


def test_the_old_model_is_bit_equal_afterwards_and_nowhere_in_the_checkpoint(tiny_manager, tmp_path):
    old = OldModel(old_network(), OTHER)
    before = bits(old.network)
    loss = losses.AdvBCTLoss(512)
    engine = engine_of(tiny_manager(), loss, old)
    student, criterion, features = bits(engine.model), bits(loss), engine.objective.old.gallery.clone()
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    assert equal(before, bits(old.network))
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in old.network.parameters())
    assert not old.network.training
    gallery = engine.objective.old.gallery
    assert torch.equal(gallery, features)
    assert not gallery.requires_grad
    assert gallery.grad is None
    assert not equal(student, bits(engine.model))
    assert not equal(criterion, bits(loss))  # the discriminator learns
    state = load_checkpoint(tmp_path / "model" / "model.pth.tar-1")
    assert state["state_dict"].keys() == student.keys()
    assert set(state["objective"]) == {f"losses.advbct.{name}" for name in criterion}
    learning = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
    assert not learning & {id(p) for p in old.network.parameters()}
    assert {id(p) for p in loss.parameters()} <= learning
    assert {"loss_x", "loss_advbct"} <= engine.history.keys()


def test_weights_of_0_are_the_plain_training_bit_by_bit(tiny_manager, tmp_path):
    plain = build(loss="softmax")
    torch.manual_seed(9)
    ImagePTLEngine(tiny_manager(), plain, sgd(plain), SoftmaxObjective(), use_gpu=False).run(
        save_dir=str(tmp_path / "plain"), max_epoch=1
    )
    criteria = {"rbcl": losses.RBCLLoss("full"), "advbct": losses.AdvBCTLoss(512), "nccl": losses.NCCLLoss(512)}
    engine = engine_of(tiny_manager(), criteria, weights=dict.fromkeys(criteria, 0.0))
    torch.manual_seed(9)
    engine.run(save_dir=str(tmp_path / "compatible"), max_epoch=1)
    assert equal(bits(plain), bits(engine.model))
    assert [name for name in engine.history if name.startswith("loss")] == ["loss"]


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_x0_25_ptl"])
def test_the_terms_of_a_step_by_hand(tiny_manager, name):
    """With and without cells."""
    manager = tiny_manager()
    criteria = {"near": losses.FeatureL2Loss(), "rbcl": losses.RBCLLoss("full")}
    engine = engine_of(manager, criteria, student=build(name), weights={"rbcl": 3.0})
    batch = next(iter(manager.train_loader))
    logits, new = copy.deepcopy(engine.model).train()(batch["img"])
    side = engine.objective.old
    old = side.batch(batch)
    unit = nn.functional.normalize
    distance = (unit(new) - unit(old.features)).norm(dim=1).mean()
    same_image = old.image_ids[:, None] == side.gallery_image_ids[None]
    ranked = losses.rbcl_loss(new, side.gallery, batch["pid"], side.gallery_pids, same_image=same_image)
    own = nn.functional.cross_entropy(logits, batch["pid"], label_smoothing=0.1)
    figures = engine.forward_backward(batch)
    assert figures["loss_x"] == pytest.approx(own.item(), rel=1e-4)
    assert figures["loss_near"] == pytest.approx(10 * distance.item(), rel=1e-4)  # the source's weight
    assert figures["loss_rbcl"] == pytest.approx(3 * ranked.item(), rel=1e-4)
    total = figures["loss_x"] + figures["loss_near"] + figures["loss_rbcl"]
    assert figures["loss"] == pytest.approx(total, rel=1e-6)


def test_an_image_without_an_old_feature_counts_for_the_own_loss_only(tiny_manager, features):
    manager = tiny_manager(transforms=[])
    batch = next(iter(manager.train_loader))
    paths = [image[0] for image in training_images(manager)]
    rows = [paths.index(path) for path in batch["impath"]]

    class Recorder(losses.CompatibleLoss):
        accepts = ("image_ids", "camids")

        def compute_loss(self, new, old, pids, **given):
            self.got = (new, old, pids, given["image_ids"], given["camids"])
            return new.sum() * 0

    class Whole(Recorder):
        whole_batch = True

    part, whole = Recorder(), Whole()
    bank = bank_of(manager, features, drop=rows[1:3])
    engine = engine_of(manager, {"part": part, "whole": whole}, bank)
    engine.forward_backward(batch)
    new, old, pids, ids, camids = part.got
    assert torch.equal(old, features[[rows[0], rows[3]]])
    assert torch.equal(pids, batch["pid"][[0, 3]])
    assert torch.equal(camids, batch["camid"][[0, 3]])
    assert (ids >= 0).all()
    assert torch.equal(new, whole.got[0][[0, 3]])
    assert whole.got[3].tolist() == [ids[0], -1, -1, ids[1]]
    assert not whole.got[1][1:3].any()
    del part.got
    engine = engine_of(manager, {"part": part}, bank_of(manager, features, drop=rows))
    figures = engine.forward_backward(batch)
    assert not hasattr(part, "got")
    assert figures["loss"] == figures["loss_x"]


def test_a_batch_without_positives(tiny_manager, features):
    """Each image the only one of its identity, in the bank too."""
    manager = tiny_manager(transforms=[])
    images = training_images(manager)
    alone = [next(row for row, image in enumerate(images) if image[1] == pid) for pid in range(4)]
    bank = bank_of(manager, features, drop=[row for row in range(16) if row not in alone])
    dataset = manager.train_loader.dataset
    items = [dataset[row] for row in alone]
    batch = torch.utils.data.default_collate(items)
    criteria = {kind: losses.RBCLLoss(kind) for kind in ("batch", "nca", "full")}
    criteria |= {"nccl": losses.NCCLLoss(512), "ract": losses.RACTLoss(), "lce": losses.LCELoss()}
    engine = engine_of(manager, criteria, bank)
    figures = engine.forward_backward(batch)
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())
    assert figures["loss_batch"] == figures["loss_nca"] == figures["loss_full"] == 0


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tiny_manager, tmp_path):
    """With a queue, class weights, draws and a discriminator to remember."""

    def fresh(folder):
        torch.manual_seed(1)
        criteria = {
            "nccl": losses.NCCLLoss(512, 20), "mixbct": losses.MixBCTLoss(4, 512), "advbct": losses.AdvBCTLoss(512)
        }  # fmt: skip
        return engine_of(tiny_manager(), criteria, bank=str(tmp_path / folder / "old.npy"), base=None)

    whole = fresh("whole")
    torch.manual_seed(9)
    whole.run(save_dir=str(tmp_path / "whole"), max_epoch=2)
    first = fresh("cut")
    torch.manual_seed(9)
    first.run(save_dir=str(tmp_path / "cut"), max_epoch=1)
    second = fresh("cut")
    second.run(save_dir=str(tmp_path / "cut"), max_epoch=2, resume="auto")
    assert equal(bits(whole.model), bits(second.model))
    assert equal(bits(whole.objective), bits(second.objective))
    assert whole.history["loss"] == second.history["loss"]
    queue = whole.objective.losses["nccl"]
    assert (int(queue.seen), len(queue.queue)) == (32, 20)


@pytest.mark.parametrize(
    "change", [pytest.param(lambda pid: pid, marks=pytest.mark.slow), lambda pid: 0], ids=["true", "zero"]
)
def test_over_pseudo_labels_a_resumed_run_ends_alike_and_true_identities_are_not_looked_at(
    tiny_manager, tmp_path, change
):
    def fresh(folder, change):
        manager = tiny_manager()
        images = [(path, change(pid), *rest) for path, pid, *rest in manager.train_set.data]
        manager.train_set.train = manager.train_set.data = images
        criteria = {"rbcl": losses.RBCLLoss("full"), "nccl": losses.NCCLLoss(512, 20), "unibct": losses.UniBCTLoss()}
        base = ClusterObjective(eps=0.99, min_samples=1, k1=1, k2=1)  # nearest pairs and single images
        return engine_of(manager, criteria, student=build(num_classes=1), base=base)

    whole = fresh("whole", lambda pid: pid)
    torch.manual_seed(9)
    whole.run(save_dir=str(tmp_path / "whole"), max_epoch=2)
    first = fresh("cut", change)
    torch.manual_seed(9)
    first.run(save_dir=str(tmp_path / "cut"), max_epoch=1)
    second = fresh("cut", change)
    second.run(save_dir=str(tmp_path / "cut"), max_epoch=2, resume="auto")
    assert equal(bits(whole.model), bits(second.model))
    assert equal(bits(whole.objective), bits(second.objective))
    assert int(second.objective.losses["nccl"].seen) <= 16  # emptied with each epoch's labels
    assert set(second.objective.old.gallery_pids.tolist()) == set(range(len(second.objective.base.centres)))


def test_another_old_model_is_refused_on_resume(tiny_manager, tmp_path):
    engine_of(tiny_manager()).run(save_dir=str(tmp_path), max_epoch=1)
    others = [
        {"old": old_network(seed=4)},
        {"old": OldModel(old_network(), OTHER)},
        {"old": OldModel(old_network(), STYLE, classifier=torch.ones(7, 512)), "old_classes": torch.arange(4)},
    ]
    for other in others:
        with pytest.raises(CheckpointError, match="another frozen model .*old model and its images"):
            engine_of(tiny_manager(), **other).run(save_dir=str(tmp_path), max_epoch=2, resume="auto")


def test_the_old_classifier_is_asked_for(tiny_manager):
    manager = tiny_manager()
    with pytest.raises(ValueError, match=r"The loss bct needs old_classifier: .*prototypes 'means'"):
        engine_of(manager, losses.BCTLoss("classifier"))
    old = OldModel(old_network(), STYLE, classifier=torch.randn(7, 512))
    engine = engine_of(manager, losses.BCTLoss("classifier"), old, old_classes=torch.tensor([6, 2, -1, 0]))
    batch = next(iter(manager.train_loader))
    _, new = copy.deepcopy(engine.model).train()(batch["img"])
    prototypes = torch.cat([old.classifier, engine.objective.old.class_means[2:3]])
    expected = losses.bct_loss(new, prototypes, torch.tensor([6, 2, 7, 0])[batch["pid"]])
    assert engine.forward_backward(batch)["loss_bct"] == pytest.approx(expected.item(), rel=1e-4)


def refuse_to_work(monkeypatch):
    monkeypatch.setattr(OldModel, "describe", lambda *_, **__: pytest.fail("long work before the refusal"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student": "shufflenet_v2_x0_5"}, r"New features have 1024 dimensions and old ones 512.*truncate.*pad"),
        ({"dimensions": "cut"}, "dimensions is 'cut'; allowed"),
        ({"loss": {}}, "at least one loss"),
        ({"weights": {"l2": 1.0}}, r"losses rbcl and weights \{'rbcl': 5\.0, 'l2': 1\.0\}"),
        ({"weights": {"rbcl": -1.0}}, "finite weights from 0"),
        ({"weights": {"rbcl": float("nan")}}, "finite weights from 0"),
        ({"weights": {"rbcl": 0.0}, "base": None}, "There is nothing to minimise"),
        ({"base": "triplet"}, "base is 'triplet'; it is 'softmax'"),
        (
            {"loss": losses.LCELoss(), "student": "shufflenet_v2_x0_5", "dimensions": "truncate"},
            "lce needs classifier: .*one linear",
        ),
        ({"bank": "old.pt"}, r"a file \*\.npy; got old\.pt"),
    ],
)
def test_what_is_wrong_is_said_before_old_features_are_computed(tiny_manager, monkeypatch, options, message):
    refuse_to_work(monkeypatch)
    loss, student = options.pop("loss", losses.RBCLLoss("full")), build(options.pop("student", "osnet_x0_25"))
    with pytest.raises(ValueError, match=message):
        ImageCompatibleEngine(tiny_manager(), student, sgd(student), old_network(), loss, use_gpu=False, **options)


@pytest.mark.parametrize(("rule", "dim"), [("truncate", 512), ("pad", 1024)])
def test_other_dimensions_by_a_declared_rule(tiny_manager, rule, dim):
    manager = tiny_manager()
    engine = engine_of(manager, losses.FeatureL2Loss(), student=build("shufflenet_v2_x0_5"), dimensions=rule)
    batch = next(iter(manager.train_loader))
    _, new = copy.deepcopy(engine.model).train()(batch["img"])
    unit, old = nn.functional.normalize, engine.objective.old.batch(batch).features
    assert (engine.objective.dim, old.shape[1]) == (dim, dim)
    expected = 10 * (unit(new[:, :dim]) - unit(old)).norm(dim=1).mean()
    assert engine.forward_backward(batch)["loss_l2"] == pytest.approx(expected.item(), rel=1e-4)


def test_mgn_is_compared_by_all_its_parts_and_learns_by_those_it_learns_by_alone(tiny_manager):
    manager = tiny_manager(train_sampler="RandomIdentitySampler", num_instances=2)
    student, bank = build("mgn"), bank_of(manager, torch.randn(16, 2048))
    engine = engine_of(manager, losses.FeatureL2Loss(), bank, student, base=MGNObjective())
    batch = next(iter(manager.train_loader))
    with torch.no_grad():
        outputs = Outputs.of(student.train()(batch["img"]), "triplet")
    assert [len(outputs.logits), len(outputs.features)] == [8, 8]
    old = engine.objective.reference(batch["img"], batch)
    terms = engine.objective(outputs, batch["pid"], old)
    own = MGNObjective()(Outputs(outputs.logits, outputs.features[:3]), batch["pid"])
    unit = nn.functional.normalize
    expected = 10 * (unit(torch.cat(outputs.features, 1)) - unit(old.features)).norm(dim=1).mean()
    torch.testing.assert_close(terms, {**own, "loss_l2": expected})


def test_without_an_objective_of_its_own(tiny_manager):
    """The criterion's class weights learn; the model's classifier is not asked."""
    loss = losses.MixBCTLoss(4, 512, scale=30.0, margin=0.3)
    engine = engine_of(tiny_manager(), loss, base=None)
    classes, classifier = loss.classes.clone(), engine.model.classifier.weight.clone()
    figures = engine.forward_backward(next(iter(engine.train_loader)))
    assert set(figures) == {"loss", "acc"}
    assert not torch.equal(classes, loss.classes)
    assert torch.equal(classifier, engine.model.classifier.weight)
    student = build()
    with pytest.raises(ValueError, match=r"optimiser lacks parameters of CompatibleObjective: losses\.mixbct\.classes"):
        ImageCompatibleEngine(tiny_manager(), student, sgd(student), old_network(), loss, use_gpu=False)


def test_mixbct_gets_the_whole_batch_and_takes_what_is_credible(tiny_manager, features):
    manager = tiny_manager(transforms=[])
    batch = next(iter(manager.train_loader))
    paths = [image[0] for image in training_images(manager)]
    bank = bank_of(manager, features, drop=[paths.index(batch["impath"][1])])
    loss = losses.MixBCTLoss(4, 512, ratio=1.0, scale=30.0, margin=0.3, keep=0.5)
    engine = engine_of(manager, loss, bank, base=None)
    _, new = copy.deepcopy(engine.model).train()(batch["img"])
    side = engine.objective.old
    mask = losses.credible_mask(side.gallery, side.gallery_pids, 0.5)
    rows = [
        None if row == 1 else bank.names.index(name) for row, name in enumerate(names_of(batch["impath"], side._root))
    ]
    credible = torch.tensor([row is not None and bool(mask[row]) for row in rows])
    assert 0 < credible.sum() < 4
    old = side.batch(batch).features
    expected = losses.mixbct_loss(new, old, batch["pid"], loss.classes, credible, 1.0, 30.0, 0.3)
    assert engine.forward_backward(batch)["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_a_queue_forgets_identities_that_are_numbered_anew(tiny_manager, features):
    manager = tiny_manager()
    loss = losses.NCCLLoss(512, 20)
    engine = engine_of(manager, loss, bank_of(manager, features))
    engine.forward_backward(next(iter(manager.train_loader)))
    engine.objective.begin_epoch(engine)  # nothing has changed
    assert int(loss.seen) == 4
    dataset = manager.train_loader.dataset.dataset
    dataset.data = [(path, 3 - pid, *rest) for path, pid, *rest in dataset.data]
    engine.objective.begin_epoch(engine)
    assert int(loss.seen) == 0


def test_bfloat16(tiny_manager):
    engine = engine_of(
        tiny_manager(), {"rbcl": losses.RBCLLoss("full"), "l2": losses.FeatureL2Loss()}, precision="bfloat16"
    )
    figures = engine.forward_backward(next(iter(engine.train_loader)))
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())


def test_training_brings_the_new_features_to_the_old_ones(tiny_manager, tmp_path):
    student = build()
    engine = ImageCompatibleEngine(
        tiny_manager(transforms=[]), student, torch.optim.Adam(student.parameters(), 0.005), old_network(),
        losses.FeatureL2Loss(), use_gpu=False, base=None,
    )  # fmt: skip
    engine.run(save_dir=str(tmp_path), max_epoch=5)
    distances = [value for _, value in engine.history["loss"]]
    assert distances[-1] < 0.9 * distances[0]


def test_the_hosts_data_manager(tiny_root, tmp_path):
    manager = torchreid.data.ImageDataManager(
        root=str(tiny_root), sources=["drawn_pedestrians_tiny"], height=64, width=32, batch_size_train=4, workers=0,
        use_gpu=False,
    )  # fmt: skip
    engine = engine_of(manager, bank=str(tmp_path / "old.npy"))
    batch = next(iter(manager.train_loader))
    assert (engine.objective.old.batch(batch).image_ids >= 0).all()
    assert "loss_rbcl" in engine.forward_backward(batch)


def test_the_margin_softmax_objective_by_hand():
    objective = MarginSoftmaxObjective(3, 4, scale=2.0, margin=0.0)
    features, pids = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    unit = nn.functional.normalize
    expected = nn.functional.cross_entropy(2 * unit(features) @ unit(objective.classes).T, pids)
    terms = objective(Outputs((), (features[:, :1], features[:, 1:])), pids)
    torch.testing.assert_close(terms["loss_x"], expected)
    assert [name for name, _ in objective.named_parameters()] == ["classes"]
    with pytest.raises(ValueError, match="scale"):
        MarginSoftmaxObjective(3, 4, scale=0.0)


@pytest.mark.parametrize(
    ("asked", "terms"),
    [
        ("l2", {"loss_l2"}),
        (losses.FeatureL2Loss(), {"loss_l2"}),
        (["l2", losses.RBCLLoss("batch")], {"loss_l2", "loss_rbcl"}),
        ({"near": losses.FeatureL2Loss(), "nccl": {"queue_size": 20}}, {"loss_near", "loss_nccl"}),
    ],
)
def test_losses_by_name_and_by_instance(tiny_manager, features, asked, terms):
    manager, student = tiny_manager(), build()
    state = torch.get_rng_state()
    objective = CompatibleObjective.build(student, manager, bank_of(manager, features), asked)
    assert torch.equal(state, torch.get_rng_state())
    optimizer = sgd(student, objective)
    engine = ImagePTLEngine(manager, student, optimizer, objective, use_gpu=False)
    figures = engine.forward_backward(next(iter(manager.train_loader)))
    assert figures.keys() - {"loss", "acc", "loss_x"} == terms
    by_engine = ImageCompatibleEngine(manager, student, optimizer, bank_of(manager, features), asked, use_gpu=False)
    assert [repr(loss) for loss in by_engine.objective.losses.values()] == [
        repr(loss) for loss in objective.losses.values()
    ]


def test_losses_that_cannot_be_named(tiny_manager, features):
    manager = tiny_manager()
    for asked, message in (
        ("l3", "no loss 'l3': did you mean 'l2'"),
        (["l2", losses.FeatureL2Loss(0.2)], "losses are l2, l2; each is named once"),
        ({"l2": {"t": 3.0}}, "t is 3.0"),
    ):
        with pytest.raises(ValueError, match=message):
            CompatibleObjective.build(build(), manager, bank_of(manager, features), asked)


def test_the_old_model_stays_at_hand(tiny_manager):
    old = OldModel(old_network(), STYLE)
    assert CompatibleObjective.build(build(), tiny_manager(), old, "l2").old_model is old


def test_a_loss_that_needs_what_no_training_has(tiny_manager, features):
    class Strange(losses.CompatibleLoss):
        needs = ("weather",)

    manager = tiny_manager()
    with pytest.raises(ValueError, match="The loss strange needs weather"):
        engine_of(manager, {"strange": Strange()}, bank_of(manager, features))
    with pytest.raises(ValueError, match="Strange has no name. Register it with torchreid_ptl.register_loss"):
        engine_of(manager, Strange(), bank_of(manager, features))
    assert issubclass(CompatibleObjective, FeatureObjective)


def test_new_and_old_model_are_compared_after_a_run_and_at_any_time(tiny_manager, tmp_path, capsys):
    old = old_network()
    engine = engine_of(tiny_manager(), old=old)
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    (target,) = engine.descriptors
    update = engine.comparison[target].updates[0].result
    assert f"{target}, old to new\ncompatible: " in capsys.readouterr().out
    query, gallery = engine.descriptors[target]
    self_test = evaluate_ranking(query, gallery, EvaluationOptions(metric="cosine"))
    assert update.self_test.mAP == pytest.approx(self_test.mAP)
    again = engine.compare(old, independent=engine.descriptors and {target: (query, gallery)})[target].updates[0].result
    assert again.cross_test.mAP == update.cross_test.mAP
    assert again.independent.mAP == pytest.approx(update.self_test.mAP)
    with pytest.raises(ValueError, match="dimensions"):
        engine.compare({target: (narrow(query), narrow(gallery))})


def narrow(side):
    return Descriptors(side.features[:, :7], side.pids, side.camids, side.paths)


def test_a_bank_that_another_process_builds_is_not_opened(tiny_manager, tmp_path, monkeypatch):
    manager, path = tiny_manager(), tmp_path / "old.npy"
    monkeypatch.setitem(lock._held, tmp_path / ".old.npy.lock", -1)  # another thread's
    (tmp_path / ".old.npy.lock").touch()
    with pytest.raises(InUseError, match=r"old\.npy is in use by process"):
        build_bank(OldModel(old_network(), STYLE), manager, path)
    assert [found.name for found in tmp_path.iterdir()] == [".old.npy.lock"]
