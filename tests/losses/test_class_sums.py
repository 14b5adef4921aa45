"""Sums by class, in a fixed order."""

import pathlib
import re

import pytest
import torch

import torchreid_ptl
from torchreid_ptl.losses.class_sums import add_by_class


@pytest.mark.parametrize("shape", [(), (5,)])
@pytest.mark.parametrize("size", [0, 1, 40])
def test_equals_the_loop(shape, size):
    rows, labels = torch.randn(size, *shape, dtype=torch.float64), torch.randint(0, 7, (size,))
    sums = torch.randn(9, *shape, dtype=torch.float64)
    expected = sums.clone()
    for row, label in zip(rows, labels.tolist(), strict=True):
        expected[label] += row
    add_by_class(sums, labels, rows)
    torch.testing.assert_close(sums, expected)


def test_every_run_sums_in_the_order_of_the_rows():
    rows = torch.tensor([1e8, 1.0, -1e8, 1.0])  # in float32 any other order gives another sum
    sums = torch.zeros(1)
    add_by_class(sums, torch.zeros(4, dtype=torch.long), rows)
    assert sums.item() == 1.0


def test_no_sum_of_the_package_has_an_order_that_a_gpu_chooses():
    """index_add, scatter_add and accumulating index_put, all of which use atomic additions on a GPU."""
    package = pathlib.Path(torchreid_ptl.__file__).parent
    atomic = re.compile(r"\.(index_add_?|scatter_add_?)\(|accumulate=True|\.scatter_reduce\([^)]*\"(sum|mean|prod)\"")
    found = [str(path) for path in package.rglob("*.py") if atomic.search(path.read_text(encoding="utf-8"))]
    assert found == []
