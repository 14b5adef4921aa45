"""On real images: run with TORCHREID_PTL_DATA naming a folder with market1501/ and the weights of an OSNet."""

import os
from pathlib import Path

import pytest

from torchreid_ptl.cli.main import configure, parse, run

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
    arguments = [
        "--root", str(real_root), "model.name", name, "model.load_weights", str(weights), "test.evaluate", "True",
        "data.workers", "1", "data.save_dir", str(tmp_path),
    ]  # fmt: skip
    result = run(configure(parse(arguments))).results["market1501"]
    assert 100 * result.rank(1) == pytest.approx(68.2, abs=0.1)
    assert 100 * result.mAP == pytest.approx(39.8, abs=0.1)
