"""The command line is split once, before argparse."""

import argparse
import os
import subprocess
import sys

import pytest
from helpers import configure, parse

from torchreid_ptl.cli.arguments import parse as split
from torchreid_ptl.cli.main import COMMANDS, main
from torchreid_ptl.config.loading import ConfigError
from torchreid_ptl.version import __version__


def parser():
    made = argparse.ArgumentParser()
    made.add_argument("--weights")
    made.add_argument("--version", nargs=2, action="append")
    made.add_argument("--names", nargs="+")
    made.add_argument("--values", nargs="+", action="append")
    made.add_argument("--resume", action="store_true")
    return made


@pytest.mark.parametrize(
    ("arguments", "pairs", "switches"),
    [
        (["train.lr", "1", "--weights", "w"], ["train.lr", "1"], {"weights": "w"}),
        (["--names", "a", "b", "train.lr", "1", "--resume"], ["train.lr", "1"], {"names": ["a", "b"], "resume": True}),
        (["--resume", "test.eval_freq", "-1"], ["test.eval_freq", "-1"], {"resume": True}),
        (["--weights", "model.pth.tar-5", "use_gpu", "False"], ["use_gpu", "False"], {"weights": "model.pth.tar-5"}),
        (["--version", "osnet", "model.pth.tar-5"], [], {"version": [["osnet", "model.pth.tar-5"]]}),
        (["--version", "osnet", "a.pth", "train.lrr", "1"], ["train.lrr", "1"], {"version": [["osnet", "a.pth"]]}),
        (["--values", "train.lr", "1", "use_gpu", "0"], ["use_gpu", "0"], {"values": [["train.lr", "1"]]}),
        (["--names", "a", "train.lr"], ["train.lr"], {"names": ["a"]}),
    ],
)  # fmt: skip
def test_keys_take_the_next_word_wherever_they_are(arguments, pairs, switches):
    parsed = vars(split(parser(), arguments))
    assert parsed.pop("opts") == pairs
    assert {name: value for name, value in parsed.items() if value} == switches


def test_switches_may_follow_the_pairs():
    config = configure(parse(["train.lr", "0.1", "-s", "viper", "train.max_epoch", "3", "-t", "grid", "--root", "/x"]))
    assert (config.train.lr, config.train.max_epoch) == (0.1, 3)
    assert (config.data.sources, config.data.targets, config.data.root) == (["viper"], ["grid"], "/x")


def test_a_key_without_a_value():
    with pytest.raises(ConfigError, match="'train.lr' has no value"):
        parse(["-s", "viper", "train.lr"])


def test_a_mistyped_command_is_answered_with_the_nearest(capsys):
    assert main(["evalaute", "--help"]) == 2
    assert capsys.readouterr().err.startswith("'evalaute' is no command: did you mean 'evaluate'? Allowed: train, ")
    assert main(["--config-file", "quickstart"]) == 2
    assert "torchreid_ptl train --config-file ..." in capsys.readouterr().err


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"torchreid_ptl {__version__}\n"
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize(
    ("command", "name"), [("models", "mgn_ptl"), ("datasets", "market1501"), ("configs", "quickstart")]
)
def test_names_are_listed(command, name, capsys):
    assert main([command]) == 0
    assert name in capsys.readouterr().out.splitlines()
    assert main([command, name]) == 0
    assert all(name in line for line in capsys.readouterr().out.splitlines())
    assert main([command, "no such name"]) == 1


def test_modules_of_the_user_are_imported(tmp_path):
    (tmp_path / "own.py").write_text("import torchreid_ptl\ntorchreid_ptl.was_imported = __name__\n")
    import torchreid_ptl

    parse(["--import", str(tmp_path / "own.py"), "train.lr", "1"])
    assert vars(torchreid_ptl).pop("was_imported") == "own"
    with pytest.raises(FileNotFoundError, match="--import names none.py, which does not exist"):
        parse(["--import", "none.py"])


@pytest.mark.slow
@pytest.mark.parametrize("command", [["tools/main.py"], ["-m", "torchreid_ptl", "train"]])
def test_both_entry_points(command, request):
    root = request.config.rootpath
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command, "--help"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "--config-file" in done.stdout
    assert "--dry-run" in done.stdout
