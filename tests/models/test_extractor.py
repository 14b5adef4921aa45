"""Checkpoints in torchreid's own FeatureExtractor."""

import pytest
import torch
import torchreid

import torchreid_ptl
from torchreid_ptl.models import embed
from torchreid_ptl.runtime.checkpoint import CheckpointError

OFF = {"pretrained": False, "use_gpu": False}


def extractor(name, path):
    return torchreid.utils.FeatureExtractor(name, str(path), image_size=(64, 32), device="cpu", verbose=False)


def saved(tmp_path, network, **config):
    torch.save({"state_dict": network.state_dict(), "config": config}, tmp_path / "model.pth.tar-1")
    return tmp_path / "model.pth.tar-1"


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_x0_25_ptl"])
def test_a_whole_model_gives_its_descriptors(tmp_path, name):
    model = torchreid.models.build_model(name, 4, **OFF).eval()
    images = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(extractor(name, saved(tmp_path, model))(images), model(images))


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_x0_25_ptl"])
def test_an_embedding_head_is_refused(tmp_path, name):
    path = saved(tmp_path, embed(name, 24, 4, size=(64, 32), **OFF), model={"name": name})
    with pytest.raises(CheckpointError, match=r"torchreid_ptl\.load_model\(weights=.*builds the model"):
        extractor(name, path)
    assert torchreid_ptl.load_model(weights=path)(torch.rand(2, 3, 64, 32)).shape == (2, 24)


def test_a_model_without_its_cells_is_refused(tmp_path, small_model):
    path = saved(tmp_path, small_model(version=0), model={"name": "osnet_x0_25_ptl"}, ptl={"cells": False})
    with pytest.raises(CheckpointError, match=r"torchreid_ptl\.load_model"):
        extractor("osnet_x0_25_ptl", path)
    assert len(torchreid_ptl.load_model(weights=path).cells) == 0


def test_a_plain_backbone_is_no_network_with_cells(tmp_path):
    with pytest.raises(CheckpointError, match="would be untrained"):
        extractor("osnet_x0_25_ptl", saved(tmp_path, torchreid.models.build_model("osnet_x0_25", 4, **OFF)))
