"""Every registered model in the host's contract: one sweep, fed by the registry."""

import pytest
import torch
import torch.nn.functional as F

import torchreid_ptl
from torchreid_ptl import host
from torchreid_ptl.cells import BConvCell

IDENTITIES = 5


def first(item):
    return item[0] if isinstance(item, (list, tuple)) else item


QUICK = ("resnet18", "resnext50_32x4d_ptl", "se_resnet50_fc512_ptl", "resnet50_ibn_a_ptl", "densenet121_fc512_ptl",
         "osnet_x0_25", "osnet_ain_x0_25", "mobilenetv2_x1_0", "shufflenet_v2_x0_5", "mgn_ptl")  # fmt: skip
"""One model of each family; the others of a family differ in depth and width."""
NAMES = [
    name if name.startswith(QUICK)
    else pytest.param(name, marks=pytest.mark.slow)
    for name in torchreid_ptl.available_models()
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_model_in_the_hosts_contract(name):
    torch.manual_seed(0)
    model = host.models()[name](num_classes=IDENTITIES, loss="triplet", pretrained=False, use_gpu=False)
    images, pids = torch.rand(4, 3, 64, 32), torch.tensor([0, 0, 1, 4])

    one_step(model, images, pids)
    in_evaluation(model, images)
    carries_states_outside_the_state_dict(model, images, has_cells=name != "mgn")


def one_step(model, images, pids):
    """A training step reaches every parameter."""
    logits, features = model.train()(images)
    logits, features = ([item] if torch.is_tensor(item) else item for item in (logits, features))
    assert all(item.shape == (4, IDENTITIES) for item in logits)
    assert all(item.dim() == 2 and item.requires_grad for item in features)
    loss = sum(F.cross_entropy(item, pids) for item in logits) + sum(item.pow(2).mean() for item in features)
    loss.backward()
    dead = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert dead == []
    model.loss = "softmax"
    only_logits = model(images)
    assert first(only_logits).shape == (4, IDENTITIES)
    torch.optim.SGD(model.parameters(), lr=1e-3).step()


def in_evaluation(model, images):
    """One 2-D descriptor per image, a function of this image alone; a 4-D map on request."""
    model.eval()
    with torch.no_grad():
        together, again = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images])
        maps = model(images, return_featuremaps=True)
    assert together.shape == (4, model.feature_dim)
    assert together.dtype == torch.float32
    assert torch.equal(together, again)
    assert (together - alone).abs().max() < 1e-4 * together.abs().max()
    assert maps.dim() == 4
    assert hasattr(model, "classifier")


def carries_states_outside_the_state_dict(model, images, has_cells):
    cells = [module for module in model.modules() if isinstance(module, BConvCell)]
    assert bool(cells) == has_cells
    model.train()
    with torch.no_grad():
        model(images)
    assert all(cell.latent is not None and not cell.latent.requires_grad for cell in cells)
    names = [*model.state_dict(), *dict(model.named_buffers())]
    assert not [name for name in names if name.endswith(("latent", "hidden"))]
    torchreid_ptl.reset_states(model)
    assert all(cell.latent is None for cell in cells)


@pytest.mark.parametrize("name", ["osnet_x0_25_ptl", "mgn_ptl"])
def test_unsupported_loss(name):
    with pytest.raises(KeyError, match="Unsupported loss: 'center'"):
        host.models()[name](num_classes=2, loss="center", pretrained=False)
