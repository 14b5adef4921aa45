"""Frozen models: always in evaluation mode, their own preprocessing, and a fingerprint; tables of their features."""

import pytest
import torch
import torch.nn.functional as F
import torchreid
from torch import nn

from torchreid_ptl.engines import FeatureTable, FrozenModel, Preprocessing, tabulate

STYLE = Preprocessing(64, 32)


class Mean(nn.Module):
    """Gives the mean of each channel and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        self.seen = x
        return x.mean((2, 3)) * self.weight


def osnet():
    return torchreid.models.build_model("osnet_x0_25", 4, pretrained=False, use_gpu=False)


def test_no_gradient_no_training_no_change():
    frozen = FrozenModel(osnet().train(), STYLE)
    images = torch.rand(2, 3, 64, 32, requires_grad=True)
    assert not frozen(images).requires_grad
    assert frozen.dim == 512
    assert not frozen.network.training
    frozen.network.train()
    with pytest.raises(RuntimeError, match="put into training mode"):
        frozen(images)


def test_images_as_wanted_pass_untouched():
    frozen = FrozenModel(Mean(), STYLE, STYLE)
    images = torch.randn(2, 3, 64, 32)
    frozen(images)
    assert frozen.network.seen is images


def test_images_are_normalised_and_resized_its_own_way():
    given = Preprocessing(64, 32, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    wants = Preprocessing(32, 16, (0.1, 0.2, 0.3), (1.0, 0.5, 0.25))
    frozen = FrozenModel(Mean(), wants, given)
    plain = torch.rand(2, 3, 64, 32)

    def normalised(x, style):
        channels = [(x[:, c] - style.mean[c]) / style.std[c] for c in range(3)]
        return torch.stack(channels, dim=1)

    frozen(normalised(plain, given))
    small = F.interpolate(plain, size=(32, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(frozen.network.seen, normalised(small, wants))


def test_the_fingerprint_is_of_weights_and_input_not_of_the_classifier():
    network = osnet()
    first = FrozenModel(network, STYLE).fingerprint()
    assert first == FrozenModel(network, STYLE).fingerprint()
    assert len(first) == 16
    assert first != FrozenModel(network, Preprocessing(128, 32)).fingerprint()
    other = osnet()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        other.classifier.weight.add_(1)
    assert first == FrozenModel(other, STYLE).fingerprint()
    with torch.no_grad():
        next(iter(other.parameters())).view(-1)[0].add_(1e-3)
    assert first != FrozenModel(other, STYLE).fingerprint()


def test_a_network_without_descriptor():
    with pytest.raises(ValueError, match=r"Conv2d gives no descriptor \(N, D\) in evaluation but \(1, 4, 62, 30\)"):
        FrozenModel(nn.Conv2d(3, 4, 3), STYLE)


def test_the_style_of_a_data_manager(tiny_manager):
    manager = tiny_manager(norm_mean=[0.1, 0.2, 0.3], norm_std=[0.5, 0.6, 0.7])
    assert Preprocessing.of(manager) == Preprocessing(64, 32, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def test_a_table_gives_each_image_its_own_feature(tiny_manager):
    manager = tiny_manager(transforms=[])
    frozen = FrozenModel(osnet(), STYLE)
    table = tabulate(frozen, manager, "teacher")
    count = 0
    for batch in manager.train_loader:
        torch.testing.assert_close(table(batch["impath"]), frozen(batch["img"]), rtol=1e-4, atol=1e-5)
        count += len(batch["impath"])
    assert count == 16


def test_a_table_without_an_image():
    table = FeatureTable(["a.png", "b.png"], torch.eye(2))
    assert torch.equal(table(["b.png", "a.png", "b.png"]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    with pytest.raises(KeyError, match=r"No features of c\.png in the table of 2 images"):
        table(["a.png", "c.png"])
    with pytest.raises(ValueError, match="1 paths and 2 features"):
        FeatureTable(["a.png"], torch.eye(2))
