"""What every test may use."""

import gc
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torchreid

import torchreid_ptl
from torchreid_ptl.data.manager import ImageDataManager

CONFIGS = Path(__file__).parents[1] / "configs"

if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # torch's threads of one process would wait for cores that another one has
    threads = max(1, torch.get_num_threads() // processes)
    torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # of programs that tests start


gc.freeze()  # modules that stay: a collection need not look at them
gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A data root with the tiny drawn set in it."""
    root = tmp_path_factory.mktemp("reid-data")
    manager_of(root)
    return root


def manager_of(root, **options):
    """A data manager over the tiny drawn set: 16 training images of 4 identities."""
    options = {
        "sources": ["drawn_pedestrians_tiny"],
        "height": 64,
        "width": 32,
        "batch_size_train": 4,
        "batch_size_test": 8,
        "workers": 0,
        "use_gpu": False,
        **options,
    }
    return ImageDataManager(root=str(root), **options)


@pytest.fixture
def tiny_manager(tiny_root):
    """Builds data managers over the tiny drawn set."""
    return lambda **options: manager_of(tiny_root, **options)


@pytest.fixture
def small_model():
    """Builds the smallest PTL network."""

    def build(loss="softmax", num_classes=4, **options):
        factory = torchreid_ptl.host.models()["osnet_x0_25_ptl"]
        return factory(num_classes=num_classes, loss=loss, pretrained=False, use_gpu=False, **options)

    return build


@pytest.fixture(scope="session")
def real_root():
    """The folder of the real images, for tests marked real_data."""
    folder = os.environ.get("TORCHREID_PTL_DATA")
    if not folder or not (Path(folder) / "market1501").is_dir():
        pytest.skip("TORCHREID_PTL_DATA names no folder with real images (market1501/)")
    return Path(folder)


@pytest.fixture
def foreign_model():
    """Registers a model of somebody else for the length of a test."""
    table = torchreid_ptl.host.models()
    added = []

    def add(name, factory):
        table[name] = factory
        added.append(name)

    yield add
    for name in added:
        table.pop(name, None)
    torchreid_ptl.register()


__all__ = ["CONFIGS", "manager_of", "torchreid"]
