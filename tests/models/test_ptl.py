"""The PTL network."""

import pytest
import torch
import torchreid
from torch import nn

import torchreid_ptl
from torchreid_ptl import host
from torchreid_ptl.cells import BConvCell, BConvCellV2
from torchreid_ptl.models import PTL


def parameters(name, **options):
    model = host.models()[name](num_classes=1041, pretrained=False, use_gpu=False, **options)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "paper"),
    [
        ("resnet50_ptl", {"version": 0}, 28e6),
        ("resnet50_ptl", {}, 35e6),
        ("densenet161_ptl", {"version": 0}, 32e6),
        ("densenet161_ptl", {}, 42e6),
    ],
)
def test_totals_of_the_paper(name, options, paper):
    assert parameters(name, **options) == pytest.approx(paper, rel=0.01)


def osnet(**options):
    torch.manual_seed(3)
    return torchreid.models.build_model("osnet_x0_25", num_classes=4, pretrained=False, use_gpu=False, **options)


def ptl(**options):
    return host.models()["osnet_x0_25_ptl"](num_classes=4, pretrained=False, use_gpu=False, **options)


def test_identity_start_keeps_the_descriptor():
    plain = osnet().eval()
    model = ptl(start="identity").eval()
    report = torchreid_ptl.runtime.weights.load_weights(model, plain.state_dict())
    assert not [name for name in report.missing if name.startswith("backbone.")]
    x = torch.rand(3, 3, 64, 32)
    assert (model(x) - plain(x)).norm() < 0.02 * plain(x).norm()


def test_random_start_does_not():
    plain = osnet().eval()
    model = ptl(start="random").eval()
    torchreid_ptl.runtime.weights.load_weights(model, plain.state_dict())
    x = torch.rand(3, 3, 64, 32)
    assert (model(x) - plain(x)).norm() > 0.5 * plain(x).norm()


def test_state_reset_forgets_before_every_batch():
    model = ptl(state="reset", loss="triplet").train()
    x = torch.rand(4, 3, 64, 32)
    model(x)
    cells = [module for module in model.modules() if isinstance(module, BConvCell)]
    assert len(cells) == 6
    assert all(cell.latent is None for cell in cells)


def test_version_chooses_the_cell():
    kinds = {
        version: {type(m) for m in ptl(version=version).modules() if isinstance(m, BConvCell)} for version in (0, 1, 2)
    }
    assert kinds == {0: set(), 1: {BConvCell}, 2: {BConvCellV2}}


@pytest.mark.parametrize("size", [(160, 64), (200, 100), (65, 33), (97, 61)])
@pytest.mark.parametrize("name", ["osnet_x0_25_ptl", "se_resnet50_ptl", "densenet121_ptl_v2"])
def test_sizes_that_backbones_round_differently(name, size):
    model = host.models()[name](num_classes=2, pretrained=False, use_gpu=False).eval()
    assert model(torch.rand(1, 3, *size)).shape == (1, model.feature_dim)
    assert model.train()(torch.rand(2, 3, *size)).shape == (2, 2)


class Own(nn.Module):
    """Somebody's own network for small images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU())
        self.top = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.classifier = nn.Linear(24, 10)


@pytest.mark.parametrize("version", [1, 2])
def test_your_own_backbone(version):
    own = Own()
    model = torchreid_ptl.PTL(own, version=version, blocks=[own.stem, "down", own.top], num_classes=10)
    assert isinstance(model, PTL)
    assert [cell.gates.stride for cell in model.cells] == [(2, 2), (2, 2)]
    assert [cell.gates.stride for cell in model.image_cells] == [(1, 1), (1, 1)]
    assert model.train()(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 24)
    assert not [name for name, _ in model.named_parameters() if name.startswith("backbone.classifier")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "warm"}, "start is 'warm'; allowed: 'identity', 'random'"),
        ({"state": "keep"}, "state is 'keep'; allowed: 'carry', 'reset'"),
        ({"version": 3}, "version is 3; allowed: 0, 1, 2"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ptl(**options)


def test_feature_maps_pool_to_the_descriptor():
    model = host.models()["resnet18_ptl"](num_classes=2, pretrained=False, use_gpu=False, start="random").eval()
    x = torch.rand(2, 3, 64, 32)
    torch.testing.assert_close(model(x, return_featuremaps=True).mean(dim=(2, 3)), model(x), rtol=1e-4, atol=1e-5)


def test_extractor_of_the_host_finds_the_model(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(ptl().state_dict(), path)
    extractor = torchreid.utils.FeatureExtractor(
        model_name="osnet_x0_25_ptl", model_path=str(path), image_size=(64, 32), device="cpu", verbose=False
    )
    assert extractor(torch.rand(2, 3, 64, 32)).shape == (2, 512)
