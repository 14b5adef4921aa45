"""The host's engines with this package's evaluation."""

import numpy as np
import pytest
import torch
import torchreid

from torchreid_ptl import host
from torchreid_ptl.evaluation import install, uninstall
from torchreid_ptl.evaluation.distances import Distances


@pytest.fixture
def installed():
    install()
    yield
    uninstall()


def stock(tiny_manager, model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.eval()
    return torchreid.engine.ImageSoftmaxEngine(tiny_manager(), model, optimizer, use_gpu=False)


def figures_of(engine, capsys, **options):
    torch.manual_seed(0)
    np.random.seed(0)
    rank1 = engine.test(ranks=[1, 5], **options)
    lines = capsys.readouterr().out.splitlines()
    return rank1, [line for line in lines if line.startswith(("mAP", "Rank"))]


@pytest.mark.parametrize("options", [{}, {"dist_metric": "cosine"}, {"rerank": True}, {"normalize_feature": True}])
def test_stock_engines_print_the_same_figures(tiny_manager, small_model, capsys, options):
    engine = stock(tiny_manager, small_model())
    before = figures_of(engine, capsys, **options)
    install()
    try:
        assert figures_of(engine, capsys, **options) == before
    finally:
        uninstall()


def test_no_matrix_is_made(tiny_manager, small_model, monkeypatch, installed):
    made = []
    monkeypatch.setattr(Distances, "dense", lambda self: made.append(self))
    monkeypatch.setattr(torchreid.metrics, "compute_distance_matrix", made.append)
    engine = stock(tiny_manager, small_model())
    engine.test(rerank=True)
    engine.test()
    assert made == []


def test_ranks_beyond_a_small_gallery_do_not_fail(tiny_manager, small_model, installed):
    stock(tiny_manager, small_model()).test(ranks=[1, 5, 10, 20])


def test_cuhk03_and_pictures(tiny_manager, small_model, installed, tmp_path):
    engine = stock(tiny_manager, small_model())
    engine.test(use_metric_cuhk03=True, visrank=True, visrank_topk=3, save_dir=str(tmp_path), ranks=[1])
    assert len(list((tmp_path / "visrank_drawn_pedestrians_tiny").glob("*.jpg"))) == 6


def test_twice_is_once_and_off_is_off():
    engine = host.part("engine.engine")
    before = engine.metrics, engine.re_ranking
    install()
    install()
    assert engine.metrics is not before[0]
    assert engine.metrics.accuracy is torchreid.metrics.accuracy
    assert torchreid.metrics.evaluate_rank is before[0].evaluate_rank
    uninstall()
    assert (engine.metrics, engine.re_ranking) == before
    uninstall()
    assert (engine.metrics, engine.re_ranking) == before
