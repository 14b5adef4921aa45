"""Embedding heads on any network, in the host's contract."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchreid_ptl import host, reset_states
from torchreid_ptl.cells import BConvCell
from torchreid_ptl.engines import evaluating
from torchreid_ptl.models import Embedded, embed, embedding_dim
from torchreid_ptl.runtime.checkpoint import CheckpointError
from torchreid_ptl.runtime.weights import load_weights

DIM, IDENTITIES, SIZE = 32, 5, (64, 32)


def embedded(name="osnet_x0_25", dim=DIM, loss="triplet", size=SIZE, **options):
    return embed(name, dim, IDENTITIES, loss, pretrained=False, use_gpu=False, size=size, **options)


def plain(name="osnet_x0_25", loss="softmax", classes=IDENTITIES):
    return host.models()[name](num_classes=classes, loss=loss, pretrained=False, use_gpu=False)


def images(count=4, size=SIZE):
    return torch.rand(count, 3, *size)


MODELS = [
    "osnet_x0_25",
    "osnet_x0_25_ptl",
    "osnet_x0_25_ptl_v2",
    "resnet18",
    "resnet50",
    "resnet50_ptl",
    "resnet50_fc512",
    "densenet161",
    "mobilenetv2_x1_0",
    "shufflenet",
    "mgn",
    "mgn_ptl",
]


@pytest.mark.parametrize(("name", "size"), [*((name, SIZE) for name in MODELS), ("hacnn", (160, 64))])
def test_the_hosts_contract(name, size):
    model, x = embedded(name, size=size), images(4, size)
    logits, features = model.train()(x)
    assert logits.shape == (4, IDENTITIES)
    assert features.shape == (4, DIM)
    assert (model.dim, model.feature_dim, model.loss) == (DIM, DIM, "triplet")
    loss = F.cross_entropy(logits, torch.tensor([0, 0, 1, 4])) + features[:, ::2].pow(3).mean()
    loss.backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    assert not [key for key in model.backbone.state_dict() if key.startswith("classifier")]
    model.loss = "softmax"
    assert model(x).shape == (4, IDENTITIES)

    model.eval()
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(image[None]) for image in x])
        assert torch.equal(together, model(x))
    assert together.shape == (4, DIM)
    assert (together - alone).abs().max() < 1e-4 * together.abs().max()


@pytest.mark.parametrize("loss", ["softmax", "triplet"])
@pytest.mark.parametrize("built_for", ["softmax", "triplet"])
def test_what_the_backbone_was_built_for_does_not_matter(loss, built_for):
    model = Embedded(plain(loss=built_for), DIM, IDENTITIES, loss, size=SIZE)
    out = model.train()(images())
    assert (out if loss == "softmax" else out[0]).shape == (4, IDENTITIES)
    assert isinstance(out, tuple) == (loss == "triplet")


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_x0_25_ptl", "mgn"])
def test_the_head_stands_on_the_backbones_descriptor(name):
    """The formula, computed from the plain network."""
    backbone = plain(name).eval()
    model, x = Embedded(copy.deepcopy(backbone), DIM, size=SIZE).eval(), images()
    linear, norm = model.embedding
    norm.running_mean.uniform_()
    norm.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        mapped = backbone(x) @ linear.weight.T
        expected = (mapped - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_layers_of_the_backbone_train_and_freeze_as_the_host_says():
    model, x = embedded("resnet18"), images()
    norm = model.backbone.bn1
    before = norm.running_mean.clone()
    model.train()(x)
    assert norm.training
    assert not torch.equal(norm.running_mean, before)
    before = norm.running_mean.clone()
    model.backbone.eval()  # the host's fixbase_epoch
    model(x)
    assert torch.equal(norm.running_mean, before)
    model.eval()
    model.backbone.train()  # the host's open_layers
    logits, features = model.train()(x)
    assert features.shape == (4, DIM)
    assert norm.training


def test_cells_inside_carry_and_forget():
    model, x = embedded("osnet_x0_25_ptl").train(), images()
    cells = [module for module in model.modules() if isinstance(module, BConvCell)]
    torch.nn.init.constant_(model.backbone.last.weight, 0.05)
    with torch.no_grad():
        _, first = model(x)
        assert all(cell.latent is not None for cell in cells)
        with evaluating(model):
            model(x)
        assert all(cell.latent is not None for cell in cells)
        _, second = model(x)
        reset_states(model)
        assert all(cell.latent is None for cell in cells)
        model.train()
        _, again = model(x)
    assert not torch.allclose(first, second, atol=1e-4)
    torch.testing.assert_close(first, again)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_the_same_network(clone):
    model, x = embedded("osnet_x0_25_ptl").eval(), images()
    other = clone(model)
    with torch.no_grad():
        assert torch.equal(model(x), other(x))
    assert other.train()(x)[1].shape == (4, DIM)
    assert other.state_dict().keys() == model.state_dict().keys()


def test_building_leaves_the_backbone_as_it_was():
    backbone = plain("osnet_x0_25_ptl").train()
    backbone.backbone.conv1.eval()
    with torch.no_grad():
        backbone(images())
    latent = backbone.cells[0].latent
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    modes = {key: module.training for key, module in backbone.named_modules() if not key.startswith("classifier")}
    model = Embedded(backbone, DIM, size=SIZE)
    assert all(torch.equal(value, state[key]) for key, value in model.backbone.state_dict().items())
    found = {key: module.training for key, module in backbone.named_modules() if not key.startswith("classifier")}
    assert found == modes
    assert backbone.cells[0].latent is latent


def test_maps_are_the_backbones():
    backbone = plain()
    model, x = Embedded(copy.deepcopy(backbone), DIM, size=SIZE), images()
    with torch.no_grad():
        expected = backbone.eval()(x, return_featuremaps=True)
        assert torch.equal(model.eval()(x, return_featuremaps=True), expected)
        assert model.train()(x, return_featuremaps=True).shape == expected.shape


def test_a_head_on_a_head():
    model = Embedded(embedded(), 8, IDENTITIES, "triplet", size=SIZE)
    assert model.train()(images())[1].shape == (4, 8)
    assert model.eval()(images()).shape == (4, 8)


@pytest.mark.parametrize(("own", "name"), [("osnet_x0_25", "osnet_x0_25"), ("osnet_x0_25", "osnet_x0_25_ptl"),
                                           ("osnet_x0_25_ptl", "osnet_x0_25_ptl"), ("resnet50", "mgn")])  # fmt: skip
def test_weights_without_a_head_fill_the_backbone(own, name):
    """As they fill the same network without a head, whose feature before the head is then the same."""
    trained = plain(own)
    without, model = plain(name).eval(), embedded(name).eval()
    fresh = {key: value.clone() for key, value in without.state_dict().items() if not key.startswith("classifier")}
    model.backbone.load_state_dict(fresh)
    expected, report = load_weights(without, trained.state_dict()), load_weights(model, trained.state_dict())
    assert {f"backbone.{key}" for key in expected.matched if not key.startswith("classifier")} == set(report.matched)
    with torch.no_grad():
        x = images()
        torch.testing.assert_close(model.backbone(x), without(x))
    assert "embedding.0.weight" in report.missing


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_x0_25_ptl", "mgn_ptl"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_own_weights_fit_as_they_are(name, prefix):
    one, other = embedded(name).eval(), embedded(name).eval()
    report = load_weights(other, {prefix + key: value for key, value in one.state_dict().items()})
    assert (report.missing, report.other_shape, report.unknown) == ([], [], [])
    with torch.no_grad():
        x = images()
        assert torch.equal(one(x), other(x))


def test_an_embedded_backbones_weights_begin_its_ptl_sibling():
    one, other = embedded("osnet_x0_25"), embedded("osnet_x0_25_ptl")
    report = load_weights(other, one.state_dict(), classifier=False)
    assert torch.equal(other.embedding[0].weight, one.embedding[0].weight)
    assert torch.equal(other.backbone.backbone.conv1.conv.weight, one.backbone.conv1.conv.weight)
    assert not torch.equal(other.classifier.weight, one.classifier.weight)
    assert report.unknown == []


def test_heads_that_fit_do_not_make_it_the_same_network():
    """Both networks give 512 dimensions, and the head is the larger part of the smaller one."""
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load_weights(embedded("resnet18", dim=512), embedded("osnet_x0_25", dim=512).state_dict())


def test_what_a_state_dict_says_of_its_head():
    assert embedding_dim(embedded(dim=7).state_dict()) == 7
    assert embedding_dim(embedded("osnet_x0_25_ptl", dim=9).state_dict()) == 9
    assert embedding_dim(plain("osnet_x0_25_ptl").state_dict()) == 0
    assert embedding_dim({"embedding.0.weight": torch.ones(3, 4)}) == 0


@pytest.mark.parametrize("dim", [0, -3, 2.0, True, "32"])
def test_what_is_no_dimension(dim):
    with pytest.raises(ValueError, match=r"dim is .*; an embedding has a whole number of dimensions, at least 1"):
        Embedded(nn.Linear(2, 2), dim)


def test_unknown_names():
    with pytest.raises(KeyError, match="Unsupported loss: 'center'"):
        embedded(loss="center")
    with pytest.raises(KeyError, match="Unknown model: 'osnet'; known: .*osnet_x0_25"):
        embedded("osnet")


def test_images_a_backbone_does_not_take():
    with pytest.raises(ValueError, match=r"MGN got images of 60x32"):
        embedded("mgn", size=(60, 32))
    with pytest.raises(ValueError, match=r"HACNN takes no images of 64x32 \(height x width\)"):
        embedded("hacnn")


class _Maps(nn.Module):
    """Gives maps."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)


class _Inside(nn.Module):
    """Gives what the network in it gives, which asks for its own mode."""

    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, x):
        return self.net(x)


def test_networks_without_a_descriptor():
    with pytest.raises(ValueError, match=r"_Maps gave \(1, 4, 62, 30\) where an embedding head needs its descriptor"):
        Embedded(_Maps(), DIM, size=SIZE)
    model = Embedded(_Inside(), DIM, size=SIZE)
    with pytest.raises(ValueError, match=r"_Inside gave \(4, 5\) .* whenever its own mode is evaluation"):
        model.train()(images())
