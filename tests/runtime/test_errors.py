"""Messages in the words of the caller."""

import re

import pytest
import torch

from torchreid_ptl.cli.arguments import report_user_errors
from torchreid_ptl.config.settings import SETTINGS
from torchreid_ptl.config.words import KEYS, in_keys
from torchreid_ptl.data.names import check_use
from torchreid_ptl.data.pseudo_labels import check_clusters
from torchreid_ptl.engines import NonFiniteLossError
from torchreid_ptl.engines.finite import require_finite
from torchreid_ptl.engines.old_gallery import compared_dim
from torchreid_ptl.runtime.checkpoint import CheckpointError
from torchreid_ptl.runtime.errors import ArgumentError, MissingFileError, WordedError


@pytest.mark.parametrize("kind", [ArgumentError, CheckpointError, MissingFileError, NonFiniteLossError])
def test_a_message_in_arguments_and_in_keys(kind, capsys):
    error = kind("{lr} is {'a': 1}; lower {lr}, or {unknown}")
    assert str(error) == "lr is {'a': 1}; lower lr, or unknown"
    assert in_keys(error) == "train.lr is {'a': 1}; lower train.lr, or unknown"

    def work():
        raise error

    assert report_user_errors(work) == 1
    assert capsys.readouterr().err == f"{kind.__name__}: {in_keys(error)}\n"


def test_other_errors_are_left_as_they_are():
    assert in_keys(ValueError("a set {lr}")) == "a set {lr}"
    assert in_keys(MissingFileError(2, "No such file", "{lr}")) == str(FileNotFoundError(2, "No such file", "{lr}"))


def test_every_key_is_one():
    assert not set(KEYS.values()) - set(SETTINGS)


@pytest.mark.parametrize(
    ("work", "argument", "key"),
    [
        (lambda: require_finite({"loss": float("nan")}, "here", None), "Lower lr ", "Lower train.lr "),
        (lambda: compared_dim(3, 4), "rule: dimensions truncate", "rule: compat.embedding truncate"),
        (lambda: check_clusters(torch.zeros(4).numpy()), "Lower eps", "Lower loss.cluster.eps"),
        (lambda: check_use(["class50:market1501"], ["market1501"], True), "combineall True", "data.combineall True"),
    ],
)
def test_python_speaks_of_arguments_and_commands_of_keys(work, argument, key):
    with pytest.raises(WordedError) as caught:
        work()
    assert argument in str(caught.value)
    assert key in in_keys(caught.value)
    assert not re.search(r"\b(compat|std|train|model|data|loss)\.[a-z]", str(caught.value))
