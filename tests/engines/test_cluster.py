"""Training by clusters."""

import random

import numpy as np
import pytest
import torch
import torchreid
from torch.nn import functional

from torchreid_ptl.engines import ClusterObjective, ImagePTLEngine, Outputs
from torchreid_ptl.host import models

LOOSE = {"eps": 0.9, "min_samples": 2, "k1": 3, "k2": 2}
NAME = "drawn_pedestrians_tiny"


def objective_with(centres, **options):
    objective = ClusterObjective(**options)
    objective.centres = functional.normalize(centres)
    return objective


def outputs_of(*features):
    return Outputs((torch.zeros(len(features[0]), 1),), features)


def engine_of(manager, model, objective=None, lr=0.01):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return ImagePTLEngine(manager, model, optimizer, objective or ClusterObjective(**LOOSE), use_gpu=False)


def seed(number):
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def test_the_loss_is_the_cross_entropy_of_cosines_to_the_centres():
    features, centres = torch.randn(4, 6), torch.randn(3, 6)
    terms = objective_with(centres, temperature=0.2)(
        outputs_of(features[:, :2], features[:, 2:]), torch.tensor([0, 2, 2, 1])
    )
    expected = 0.0
    for row, cluster in zip(features.double(), [0, 2, 2, 1], strict=True):
        cosines = [(row @ c / row.norm() / c.norm()).item() / 0.2 for c in centres.double()]
        expected += (np.log(np.exp(cosines).sum()) - cosines[cluster]) / 4
    assert list(terms) == ["loss_cluster"]
    assert terms["loss_cluster"].item() == pytest.approx(expected, rel=1e-5)


def test_centres_of_the_batch_move_in_training_alone():
    features = torch.randn(4, 6, requires_grad=True)
    before = functional.normalize(torch.randn(3, 6))
    objective, pids = objective_with(before, momentum=0.3), torch.tensor([0, 2, 2, 0])
    objective.eval()(outputs_of(features), pids)
    assert torch.equal(objective.centres, before)
    objective.train()(outputs_of(features), pids)["loss_cluster"].backward()
    units = features.detach() / features.detach().norm(dim=1, keepdim=True)
    for cluster, rows in {0: (0, 3), 2: (1, 2)}.items():
        moved = 0.3 * before[cluster] + 0.7 * (units[rows[0]] + units[rows[1]]) / 2
        torch.testing.assert_close(objective.centres[cluster], moved / moved.norm())
    assert torch.equal(objective.centres[1], before[1])
    assert not objective.centres.requires_grad


def test_the_gradient_is_that_of_centres_that_stand_still():
    features = torch.randn(3, 4, dtype=torch.double)
    centres, pids = functional.normalize(torch.randn(2, 4)), torch.tensor([0, 1, 1])
    given = features.float().requires_grad_()
    objective_with(centres, temperature=0.5)(outputs_of(given), pids)["loss_cluster"].backward()
    plain = features.requires_grad_()
    cosines = functional.normalize(plain) @ centres.double().T
    functional.cross_entropy(cosines / 0.5, pids).backward()
    torch.testing.assert_close(given.grad, plain.grad.float())


def test_accuracy_counts_nearest_centres():
    objective = objective_with(torch.eye(3))
    features = torch.eye(3)[torch.tensor([0, 1, 2, 2])] * 7 + 0.1
    assert objective.accuracy(outputs_of(features), torch.tensor([0, 1, 2, 0])).item() == 75


def test_half_precision_features():
    objective = objective_with(torch.randn(2, 8))
    loss = objective(outputs_of(torch.randn(4, 8).bfloat16()), torch.tensor([0, 1, 0, 1]))["loss_cluster"]
    assert loss.dtype == torch.float32
    assert objective.centres.dtype == torch.float32


def test_nothing_of_the_clusters_is_in_a_checkpoint():
    assert objective_with(torch.randn(2, 8)).state_dict() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature is 0; allowed: numbers from 0.0001"),
        ({"momentum": 1}, "momentum is 1; allowed: numbers from 0 to below 1"),
        ({"momentum": -0.1}, "momentum is -0.1"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        ClusterObjective(**options)


@pytest.mark.parametrize("sampler", [pytest.param("RandomSampler", marks=pytest.mark.slow), "RandomIdentitySampler"])
def test_a_run_clusters_before_each_epoch(tiny_manager, small_model, tmp_path, capsys, sampler):
    manager = tiny_manager(train_sampler=sampler, num_instances=2, transforms=["random_flip", "random_erase"])
    objective = ClusterObjective(**LOOSE)
    engine = engine_of(manager, small_model(loss="triplet", num_classes=1), objective)
    engine.run(save_dir=str(tmp_path), max_epoch=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "clusters" in line]
    labels = [item[1] for item in manager.train_loader.dataset.dataset.data]
    clusters, inside = len(set(labels)), len(labels)
    assert len(lines) == 2
    assert lines[1] == f"epoch 2: {clusters} clusters, {inside} images, {16 - inside} outliers excluded"
    assert clusters > 1
    assert objective.centres.shape == (clusters, 512)
    torch.testing.assert_close(objective.centres.norm(dim=1), torch.ones(clusters))
    assert {name for name in engine.history if "mAP" not in name and "rank" not in name} == {"loss", "acc", "lr"}


def test_centres_are_the_means_of_what_the_model_says_of_plain_images(tiny_manager, small_model):
    manager = tiny_manager(transforms=["random_flip", "random_erase"])
    model, objective = small_model(loss="triplet", num_classes=1), ClusterObjective(**LOOSE)
    engine = engine_of(manager, model, objective)
    states = random.getstate(), torch.get_rng_state()
    model.train()
    objective.begin_epoch(engine)
    assert model.training
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    label = {item[0]: item[1] for item in manager.train_loader.dataset.dataset.data}
    sums = {}
    model.eval()
    with torch.no_grad():
        for batch in manager.train_in_order():
            for path, feature in zip(batch["impath"], model(batch["img"]), strict=True):
                sums[label.get(path)] = sums.get(label.get(path), 0) + feature / feature.norm()
    for cluster, centre in enumerate(objective.centres):
        torch.testing.assert_close(centre, sums[cluster] / sums[cluster].norm())


@pytest.mark.parametrize("sampler", [pytest.param("RandomSampler", marks=pytest.mark.slow), "RandomIdentitySampler"])
def test_a_resumed_run_equals_one_never_stopped(tiny_manager, small_model, tmp_path, sampler):
    def run(folder, epochs, resume=""):
        seed(11)
        manager = tiny_manager(train_sampler=sampler, num_instances=2, transforms=["random_flip", "random_erase"])
        pairs = ClusterObjective(eps=0.99, min_samples=1, k1=1, k2=1)  # never a single cluster, whatever is learnt
        engine = engine_of(manager, small_model(loss="triplet", num_classes=1), pairs)
        engine.run(save_dir=str(folder), max_epoch=epochs, eval_freq=1, resume=resume)
        return engine

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    resumed = run(tmp_path / "parts", 4, resume="auto")
    other = resumed.model.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in whole.model.state_dict().items())
    assert torch.equal(whole.objective.centres, resumed.objective.centres)
    assert whole.history == resumed.history


def test_true_identities_are_never_looked_at(tiny_manager, small_model, tmp_path):
    def run(change):
        seed(5)
        manager = tiny_manager()
        data = [(path, change(index), *rest) for index, (path, _, *rest) in enumerate(manager.train_set.data)]
        manager.train_set.train = manager.train_set.data = data
        engine = engine_of(manager, small_model(loss="triplet", num_classes=1))
        engine.run(save_dir=str(tmp_path / str(change(1))), max_epoch=2)
        return engine.model.state_dict()

    first, second = run(lambda index: index % 4), run(lambda index: 77 - index)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_images_that_cannot_be_read_are_left_out(tiny_manager, small_model, tmp_path):
    manager = tiny_manager(on_bad_image="skip")
    path, *rest = manager.train_set.data[3]
    (tmp_path / "bad.jpg").write_text("no image")
    manager.train_set.data[3] = (str(tmp_path / "bad.jpg"), *rest)
    order = [item[0] for item in manager.train_set.data]
    engine = engine_of(manager, small_model(loss="triplet", num_classes=1))
    engine.run(save_dir=str(tmp_path / "log"), max_epoch=1)
    assert set(engine.bad_images) == {str(tmp_path / "bad.jpg")}
    kept = [item[0] for item in manager.train_loader.dataset.dataset.data]
    assert kept == [each for each in order if each in kept]
    assert str(tmp_path / "bad.jpg") not in kept
    assert len(engine.objective.centres) == len({item[1] for item in manager.train_loader.dataset.dataset.data})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_samples": 17}, "16 images give 0 clusters and 16 outliers.*Raise eps"),
        ({"k1": 30, "k2": 16, "eps": 0.99}, "16 images give 1 cluster and 0 outliers.*Lower eps"),
    ],
)
def test_nothing_to_tell_apart_stops_the_run(tiny_manager, small_model, tmp_path, options, message):
    engine = engine_of(
        tiny_manager(), small_model(loss="triplet", num_classes=1), ClusterObjective(**{**LOOSE, **options})
    )
    with pytest.raises(ValueError, match=message):
        engine.run(save_dir=str(tmp_path), max_epoch=1)


def test_the_hosts_own_manager_takes_no_labels(tiny_root, small_model):
    manager = torchreid.data.ImageDataManager(
        root=str(tiny_root), sources=NAME, height=64, width=32, batch_size_train=4, workers=0, use_gpu=False
    )
    engine = engine_of(manager, small_model(loss="triplet", num_classes=1))
    with pytest.raises(ValueError, match="use torchreid_ptl.data.manager.ImageDataManager"):
        engine.objective.begin_epoch(engine)


def test_mgn_is_compared_by_all_its_parts(tiny_manager):
    model = models()["mgn"](num_classes=1, loss="triplet", pretrained=False, use_gpu=False)
    engine = engine_of(tiny_manager(), model, lr=1e-4)
    engine.objective.begin_epoch(engine)
    assert engine.objective.centres.shape[1] == 8 * 256
    model.train()
    figures = engine.forward_backward(next(iter(engine.datamanager.train_loader)))
    assert figures["loss"] > 0


def test_a_model_that_describes_images_by_something_else(tiny_manager):
    class Two(torch.nn.Module):
        loss = "triplet"

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 4)

        def forward(self, images):
            feature = self.layer(images.mean(dim=(2, 3)))
            return (feature, feature) if self.training else torch.cat([feature, feature], dim=1)

    engine = engine_of(tiny_manager(), Two())
    with pytest.raises(ValueError, match="training features of 4 dimensions and descriptors of 8"):
        engine.objective.begin_epoch(engine)
