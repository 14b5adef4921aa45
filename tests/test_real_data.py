"""On real images: run with TORCHREID_PTL_DATA naming a folder with market1501/ and the weights of an OSNet."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchreid
from helpers import configure, parse, run

from torchreid_ptl import load_weights
from torchreid_ptl.data.manager import ImageDataManager
from torchreid_ptl.evaluation import Descriptors, evaluate_ranking, rerank

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture
def weights(real_root):
    for folder in (os.environ.get("TORCHREID_PTL_WEIGHTS"), real_root / "weights"):
        path = Path(folder or "") / "osnet_x0_25_msmt17.pth"
        if path.is_file():
            return path
    pytest.skip("osnet_x0_25_msmt17.pth is neither in TORCHREID_PTL_WEIGHTS nor in weights/ beside the images")
    return None


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_x0_25_ptl", "osnet_x0_25_ptl_v2"])
def test_untouched_model_scores_the_same_with_and_without_cells(real_root, weights, tmp_path, name):
    """CMC-1 68.2 and mAP 39.8 on Market-dev, to 0.1."""
    model = torchreid.models.build_model(name, num_classes=1, pretrained=False)
    load_weights(model, str(weights))
    filled = tmp_path / "filled.pth"
    torch.save(model.state_dict(), filled)
    arguments = [
        "--root", str(real_root), "model.name", name, "model.load_weights", str(filled), "test.evaluate", "True",
        "data.workers", "1", "data.save_dir", str(tmp_path),
    ]  # fmt: skip
    result = run(configure(parse(arguments))).results["market1501"]
    assert 100 * result.rank(1) == pytest.approx(68.2, abs=0.1)
    assert 100 * result.mAP == pytest.approx(39.8, abs=0.1)


def test_real_images_joined_with_drawn_ones(real_root, tmp_path):
    (tmp_path / "market1501").symlink_to(real_root / "market1501")
    options = {"targets": "drawn_pedestrians_tiny", "batch_size_train": 64, "workers": 1, "use_gpu": False}
    built = ImageDataManager(root=str(tmp_path), sources="joined:market1501+drawn_pedestrians_tiny", **options)
    assert (built.num_train_pids, built.num_train_cams) == (751 + 4, 6 + 2)
    assert len(built.train_loader.dataset) == 12936 + 16
    assert next(iter(built.train_loader))["img"].shape == (64, 3, 256, 128)


@pytest.fixture
def descriptors(real_root, weights, tmp_path):
    """Query and gallery descriptors of the untouched OSNet, as the command that evaluates leaves them."""
    from torchreid_ptl.cli.evaluate import main
    from torchreid_ptl.data.features import FeatureFile

    arguments = [
        "--model", "osnet_x0_25", "--weights", str(weights), "--root", str(real_root), "-t", "market1501",
        "--save-dir", str(tmp_path), "--save-features", "data.workers", "1",
    ]  # fmt: skip
    assert main(arguments) == 0
    return tmp_path, *(FeatureFile(tmp_path / f"features_market1501_{side}.npz") for side in ("query", "gallery"))


def test_evaluation_of_real_descriptors_equals_the_hosts(descriptors, monkeypatch):
    """Scores to the last bit, re-ranking to 1e-6, and a threshold that holds for people it was not chosen on."""
    folder, query, gallery = descriptors
    labels = (query.pids, gallery.pids, query.camids, gallery.camids)
    sides = torch.tensor(query.read()), torch.tensor(gallery.read())
    pairs = (sides, (sides[0], sides[0]), (sides[1], sides[1]))
    matrices = tuple(torchreid.metrics.compute_distance_matrix(*pair).numpy() for pair in pairs)
    unstable = np.argsort
    with monkeypatch.context() as patch:
        patch.setattr(np, "argsort", lambda values, axis=-1: unstable(values, axis=axis, kind="stable"))
        cmc, mean_ap = torchreid.metrics.evaluate_rank(matrices[0], *labels, use_cython=False)
        reranked = torchreid.utils.re_ranking(*matrices)
    images = (Descriptors(None, side.pids, side.camids) for side in (query, gallery))
    result = evaluate_ranking(*images, distances=matrices[0])
    assert result.mAP == mean_ap
    np.testing.assert_array_equal(result.cmc, cmc)
    np.testing.assert_allclose(rerank(None, None, distances=matrices).dense(), reranked, atol=1e-6)
    np.testing.assert_allclose(rerank(*sides).dense(), reranked, atol=1e-6)
    scores = json.loads((folder / "results.json").read_text())["targets"]["market1501"]
    assert scores["mAP"] == pytest.approx(mean_ap, abs=1e-6)
    found = scores["verification"]["at_far"]
    assert found["chosen"]["far"] <= 1e-3
    assert found["reported"]["far"] < 3e-3
    assert found["reported"]["tar"] > 0.1
