"""Other labels for the training images, and all of them as they are."""

import numpy as np
import pytest
import torch
import torchreid

from torchreid_ptl.data.in_order import in_order

NAME = "drawn_pedestrians_tiny"
LABELS = np.array([2, -1, 0, 0, 1, 1, -1, 2] * 2)


def listed(loader):
    return loader.dataset.dataset.data


def seen(loader):
    """Path and identity of everything an epoch yields."""
    return [pair for batch in loader for pair in zip(batch["impath"], batch["pid"].tolist(), strict=True)]


def test_images_with_a_label_are_left_with_it(tiny_manager):
    manager = tiny_manager(batch_size_train=6, transforms=["random_flip", "random_erase"])
    before = [item[0] for item in manager.train_set.data]
    augmentation = manager.train_loader.dataset.dataset.transform
    manager.relabel(LABELS)
    expected = {path: label for path, label in zip(before, LABELS.tolist(), strict=True) if label >= 0}
    pairs = seen(manager.train_loader)
    assert len(pairs) == 12
    assert dict(pairs) == expected
    assert manager.train_loader.batch_size == 6
    assert manager.train_loader.drop_last
    assert manager.train_loader.dataset.dataset.transform is augmentation is manager.transform_tr


def test_the_sampler_of_identities_sees_the_labels(tiny_manager):
    manager = tiny_manager(train_sampler="RandomIdentitySampler", num_instances=2)
    manager.relabel(LABELS)
    for batch in manager.train_loader:
        numbers, counts = batch["pid"].unique(return_counts=True)
        assert set(numbers.tolist()) <= {0, 1, 2}
        assert counts.tolist() == [2, 2]


def test_again_and_again_for_all_images(tiny_manager):
    manager = tiny_manager()
    order = [(item[0], item[1]) for item in manager.train_set.data]
    for labels in (LABELS, np.roll(LABELS, 3), np.arange(16)):
        manager.relabel(labels)
        assert [item[1] for item in listed(manager.train_loader)] == [label for label in labels if label >= 0]
        assert [(item[0], item[1]) for item in manager.train_set.data] == order
        assert seen(manager.train_in_order()) == order


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros(15, int), {}, r"labels are int64 of shape \(15,\); .*each of the 16 training images"),
        (np.zeros((16, 1), int), {}, r"of shape \(16, 1\)"),
        (np.zeros(16), {}, "labels are float64"),
        (np.array([0, 1, 2] + [-1] * 13), {}, "batch_size_train is 4 and the training set has 3 images"),
        (
            np.array([0] * 16),
            {"train_sampler": "RandomIdentitySampler", "num_instances": 2},
            "needs 2 identities; the training set has 1",
        ),
    ],
)
def test_labels_that_cannot_be_used_leave_the_loader_as_it_was(tiny_manager, labels, options, message):
    manager = tiny_manager(**options)
    loader = manager.train_loader
    with pytest.raises(ValueError, match=message):
        manager.relabel(labels)
    assert manager.train_loader is loader


def stock(root):
    return torchreid.data.ImageDataManager(
        root=str(root), sources=NAME, height=64, width=32, batch_size_train=4, batch_size_test=5, workers=0,
        use_gpu=False, transforms=["random_flip", "random_erase"],
    )  # fmt: skip


@pytest.mark.parametrize("whose", ["ours", "the host's"])
def test_all_images_in_order_without_augmentation(tiny_manager, tiny_root, whose):
    if whose == "ours":
        manager = tiny_manager(transforms=["random_flip", "random_erase"], batch_size_test=5)
        manager.relabel(LABELS)
        data = manager.train_set.data
    else:
        manager = stock(tiny_root)
        data = manager.train_loader.dataset.data
    loader = in_order(manager)
    first, second = (list(loader) for _ in range(2))
    assert [len(batch["pid"]) for batch in first] == [5, 5, 5, 1]
    assert [path for batch in first for path in batch["impath"]] == [item[0] for item in data]
    images = [torch.cat([batch["img"] for batch in batches]) for batches in (first, second)]
    assert torch.equal(*images)
    augmented = manager.train_loader.dataset
    assert getattr(augmented, "dataset", augmented).transform is manager.transform_tr
    plain = manager.transform_te.transforms
    assert [type(step) for step in loader.dataset.dataset.transform.transforms] == [type(step) for step in plain]
