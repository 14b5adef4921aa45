"""What differs between two configurations."""

import pytest

from torchreid_ptl.config import differences
from torchreid_ptl.config.loading import default_config, load_config, to_dict
from torchreid_ptl.config.settings import SETTINGS

NOTHING = {
    "compat.bank", "compat.features", "compat.old_weights", "data.root", "data.save_dir", "data.workers",
    "eval.memory_mb", "eval.rank_list_queries", "eval.rank_lists", "model.keep_last", "model.resume", "std.cache",
    "std.teacher_weights", "test.visrank", "test.visrank_topk", "train.print_freq", "use_gpu",
}  # fmt: skip


def test_what_a_change_affects():
    by_level = {
        level: {k for k, s in SETTINGS.items() if s.affects == level} for level in ("weights", "scores", "nothing")
    }
    assert by_level["nothing"] == NOTHING
    tests = {key for key in SETTINGS if key.startswith(("test.", "eval."))} - NOTHING
    assert by_level["scores"] == {*tests, "cuhk03.use_metric_cuhk03", "compat.independent"}
    assert set().union(*by_level.values()) == set(SETTINGS)
    assert {"model.load_weights", "model.pretrained", "data.on_bad_image", "data.targets"} <= by_level["weights"]


@pytest.mark.parametrize(
    ("options", "weights", "scores"),
    [
        ([], [], []),
        (["data.workers", "9", "data.save_dir", "x", "std.cache", "True"], [], []),
        (["test.rerank", "True"], [], ["test.rerank was False and is True"]),
        (["train.lr", "0.1"], ["train.lr was 0.0003 and is 0.1"], ["train.lr was 0.0003 and is 0.1"]),
        (["data.sources", "[msmt17]"], ["data.sources was ['market1501'] and is ['msmt17']"], 1),
        (["train.max_epoch", "70"], [], ["train.max_epoch was 60 and is 70"]),
        (["train.max_epoch", "50"], ["train.max_epoch was 60 and is 50"], 1),
    ],
)
def test_differences_by_what_they_affect(options, weights, scores):
    then, now = default_config(), load_config(None, options)
    assert differences(then, now) == differences(to_dict(then), to_dict(now), "weights") == weights
    assert differences(then, now, "scores") == (weights if scores == 1 else scores)
    assert len(differences(then, now, "nothing")) == len(options) // 2


def test_a_schedule_that_depends_on_the_epochs_cannot_be_made_longer():
    then, now = (load_config(None, ["train.lr_scheduler", "cosine", "train.max_epoch", n]) for n in ("3", "4"))
    assert differences(then, now) == ["train.max_epoch was 3 and is 4"]


def test_settings_that_one_side_does_not_know_are_no_difference():
    assert differences({"train.lr": 1, "gone": {"key": 2}}, {"train": {"seed": 3}, "new": 1}) == []
    assert differences({"train.lr": 1, "odd": 2}, {"train": {"lr": 2}, "odd": 3}) == ["train.lr was 1 and is 2"]


def test_a_chain_may_be_moved():
    def stage(place, weights):
        return load_config(None, ["data.save_dir", f"{place}/2-b", "model.load_weights", weights])

    then = stage("log/chain", "log/chain/1-a/model/model.pth.tar-3")
    assert differences(then, stage("/other/chain", "/other/chain/1-a/model/model.pth.tar-3")) == []
    for weights in ("/other/chain/1-c/model/model.pth.tar-3", "/chain/1-a/model/model.pth.tar-3", ""):
        assert len(differences(then, stage("/other/chain", weights))) == 1
