"""MGN and MGN+PTL."""

import pytest
import torch
import torchreid

from torchreid_ptl import host
from torchreid_ptl.models import convert_authors_weights
from torchreid_ptl.runtime.weights import load_weights


def build(name="mgn_ptl", num_classes=3, **options):
    return host.models()[name](num_classes=num_classes, pretrained=False, use_gpu=False, **options)


@pytest.mark.parametrize(("name", "total"), [("mgn", 66_678_200), ("mgn_ptl", 80_887_992 + 4 * 1264)])
def test_totals(name, total):
    """The released networks with 751 identities; MGN+PTL's 80,887,992 that train and the cells' 5,056 biases."""
    assert sum(p.numel() for p in build(name, 751).parameters()) == total


@pytest.mark.parametrize("size", [(384, 128), (256, 128), (64, 32), (128, 64)])
def test_sizes(size):
    model = build(loss="triplet").eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, *size)).shape == (1, 2048)
    logits, wholes = model.train()(torch.rand(2, 3, 64, 32))
    assert [item.shape for item in logits] == [(2, 3)] * 8
    assert [item.shape for item in wholes] == [(2, 256)] * 3


@pytest.mark.parametrize(
    ("size", "nearest"), [((250, 128), "224x128 and 256x128"), ((384, 100), "384x96 and 384x128"), ((32, 32), "64x32")]
)
def test_sizes_the_strides_do_not_allow(size, nearest):
    with pytest.raises(ValueError, match=f"got images of {size[0]}x{size[1]}.*Nearest sizes: {nearest}"):
        build("mgn")(torch.rand(1, 3, *size))


def test_descriptor_is_the_parts_side_by_side():
    model = build("mgn", loss="triplet").eval()
    x = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        descriptor = model(x)
        shared, maps = model._shared(x)
        p2 = model.branches["p2"](shared)
        half = p2.shape[2] // 2
        upper = model.reduction(p2[:, :, :half].amax(dim=(2, 3), keepdim=True)).flatten(1)
    assert maps == {}
    torch.testing.assert_close(descriptor[:, 3 * 256 : 4 * 256], upper)


def test_weights_of_resnet50_begin_all_three_branches():
    resnet = torchreid.models.build_model("resnet50", num_classes=9, pretrained=False, use_gpu=False)
    model = build("mgn_ptl")
    report = load_weights(model, resnet.state_dict())
    state, plain = model.state_dict(), resnet.state_dict()
    assert torch.equal(state["stem.0.weight"], plain["conv1.weight"])
    for branch in ("p1", "p2", "p3"):
        assert torch.equal(state[f"branches.{branch}.0.0.conv1.weight"], plain["layer3.1.conv1.weight"])
        assert torch.equal(state[f"branches.{branch}.1.2.bn3.bias"], plain["layer4.2.bn3.bias"])
    assert all(name.startswith(("cells.", "reduction.", "classifier.")) for name in report.missing)


def test_branches_do_not_share_weights():
    model = build("mgn")
    assert model.branches["p1"][1][0].conv2.stride == (2, 2)
    assert model.branches["p2"][1][0].conv2.stride == (1, 1)
    addresses = [p.data_ptr() for p in model.parameters()]
    assert len(addresses) == len(set(addresses))


def authors_names(model):
    """What the authors' code would call the entries of a model of ours, dead layers included."""
    heads = ("2048_0", "2048_1", "2048_2", "256_1_0", "256_1_1", "256_2_0", "256_2_1", "256_2_2")
    plain = model.cells is None
    places = {"stem.0": ("0", "conv1"), "stem.1": ("1", "bn1"), "layer1": ("4", "layer1"), "layer2": ("5", "layer2")}
    places["layer3_0"] = ("6", "layer3.0")
    named = {}
    for key, value in model.state_dict().items():
        if key.startswith("cells.bconv") and key.endswith("bias"):
            continue
        for ours, theirs in places.items():
            if key.startswith(ours + "."):
                key = f"backbone.{theirs[0] if plain else theirs[1]}{key[len(ours) :]}"
                break
        if key.startswith("classifier."):
            _, number, kind = key.split(".")
            key = f"fc_id_{heads[int(number)]}.{kind}"
        key = key.replace("branches.", "").replace("cells.", "ptl.")
        named[key] = value
    if not plain:
        named |= {"backbone.layer3.4.conv1.weight": torch.zeros(1), "backbone.fc.bias": torch.zeros(1)}
    return named


@pytest.mark.parametrize("name", ["mgn", "mgn_ptl"])
def test_weights_of_the_authors_code(name):
    source = build(name)
    for cell in source.cells.modules() if source.cells else ():
        if hasattr(cell, "gates"):
            torch.nn.init.zeros_(cell.gates.bias)
    released = {f"module.{key}": value for key, value in authors_names(source).items()}
    converted = convert_authors_weights(released)
    target = build(name)
    target.load_state_dict(converted, strict=True)
    x = torch.rand(2, 3, 64, 32)
    assert torch.equal(target.eval()(x), source.eval()(x))
    other = build(name)
    load_weights(other, released)
    assert torch.equal(other.eval()(x), source(x))


def test_other_weights_are_not_converted():
    with pytest.raises(ValueError, match="no weights of the PTL authors' code.*fc_id_2048_0"):
        convert_authors_weights({"conv1.weight": torch.zeros(1)})
