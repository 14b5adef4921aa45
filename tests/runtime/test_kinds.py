"""Checkpoints whose entries are of another kind than a run writes."""

import numpy as np
import pytest
import torch

from torchreid_ptl.runtime.checkpoint import CheckpointError, load_run, newest_checkpoint, save_checkpoint
from torchreid_ptl.runtime.kinds import wrong_entries
from torchreid_ptl.runtime.seeding import random_state

NAN = float("nan")


def state(**changed):
    return {
        "state_dict": {"weight": torch.ones(2), "count": torch.tensor(1)},
        "epoch": 2,
        "rank1": 0.5,
        "tested": True,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "scheduler": None,
        "objective": {},
        "reference": "",
        "best_score": -1.0,
        "bad_images": [],
        "history": {"loss": [(1, 0.5), [2, 0.25]]},
        "random_state": random_state(),
        "config": {"train": {"lr": 0.1}},
        **changed,
    }


@pytest.mark.parametrize(
    "entry",
    [
        {"state_dict": [1, 2]}, {"state_dict": {"weight": 1}}, {"state_dict": {1: torch.ones(1)}}, {"state_dict": None},
        {"state_dict": {"weight": torch.tensor([NAN])}}, {"state_dict": torch.ones(2)},
        {"epoch": "2"}, {"epoch": None}, {"epoch": -1}, {"epoch": 2.5}, {"epoch": True}, {"epoch": [2]},
        {"rank1": None}, {"rank1": "0.5"}, {"rank1": NAN}, {"rank1": torch.ones(2)}, {"best_score": {}},
        {"tested": "yes"}, {"optimizer": 5}, {"optimizer": {}}, {"optimizer": {"state": [], "param_groups": []}},
        {"optimizer": {"state": {0: 1}, "param_groups": []}}, {"optimizer": {"state": {}, "param_groups": [3]}},
        {"optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, {"scheduler": "cosine"}, {"objective": None},
        {"objective": {1: 2}}, {"reference": None}, {"bad_images": 3}, {"bad_images": [3]}, {"history": []},
        {"history": {"loss": 3}}, {"history": {"loss": [1, 2]}}, {"history": {"loss": [(1, 2, 3)]}},
        {"random_state": None}, {"random_state": {}}, {"random_state": {**random_state(), "python": [3, [1], None]}},
        {"random_state": {**random_state(), "numpy": ["MT19937", torch.ones(3), 1, 0, 0.0]}},
        {"random_state": {**random_state(), "torch": torch.ones(3)}}, {"random_state": {**random_state(), "cuda": [1]}},
        {"config": "train"}, {"config": {1: {}}},
    ],
    ids=lambda entry: next(iter(entry)),  # the state of the generators differs from process to process
)  # fmt: skip
def test_an_odd_entry_is_named_and_the_older_checkpoint_taken(tmp_path, capsys, entry):
    save_checkpoint(state(epoch=1), tmp_path / "model.pth.tar-1")
    save_checkpoint(state(**entry), tmp_path / "model.pth.tar-2")
    with pytest.raises(
        CheckpointError, match=rf"model\.pth\.tar-2 cannot be continued: {next(iter(entry))} is .*, not "
    ):
        load_run(tmp_path / "model.pth.tar-2")
    path, found = newest_checkpoint(tmp_path)
    assert (path.name, found["epoch"]) == ("model.pth.tar-1", 1)
    assert f"cannot be continued: {next(iter(entry))}" in capsys.readouterr().out


@pytest.mark.parametrize("entry", [{}, {"rank1": np.float64(0.5)}, {"epoch": np.int64(3)}, {"scheduler": {"last": 1}}])
def test_what_runs_write_is_sound(entry):
    assert wrong_entries(state(**entry)) == []
