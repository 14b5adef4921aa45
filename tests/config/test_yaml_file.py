"""YAML as users write it: encodings, keys given twice, anchors, sizes; paths with ~."""

import codecs
import os
import subprocess
import sys

import pytest

from torchreid_ptl.cli.arguments import parse, parser_of
from torchreid_ptl.config.loading import ConfigError, load_config
from torchreid_ptl.config.yaml_file import parse_yaml

BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


def load(tmp_path, content, name="own.yaml"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_config(tmp_path / name)


@pytest.mark.parametrize(
    "mark", [pytest.param(b"", marks=pytest.mark.slow), codecs.BOM_UTF8], ids=["plain", "with a mark"]
)
def test_utf8_is_read_in_every_locale(tmp_path, mark):
    path = tmp_path / "own.yaml"
    path.write_bytes(mark + "# réglages\ntrain: {max_epoch: 7}\ndata: {save_dir: log/été}\n".encode())
    code = "import sys; from torchreid_ptl.config.loading import load_config\n"
    code += "config = load_config(sys.argv[1]); print(config.train.max_epoch, ascii(config.data.save_dir))"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=plain)
    assert done.stdout.splitlines()[-1:] == [r"7 'log/\xe9t\xe9'"], done.stderr


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_unicode_encoding_is_named(tmp_path, encoding):
    with pytest.raises(ConfigError, match=rf"own\.yaml is {encoding.upper()}; save it as UTF-8"):
        load(tmp_path, "train: {max_epoch: 7}\n".encode(encoding))


def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"own\.yaml is not UTF-8 \(line 2, byte 0xe9\); save it as UTF-8"):
        load(tmp_path, b"train: {max_epoch: 7}\n# r\xe9glages\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: {max_epoch: 2}\ndata: {}\ntrain: {lr: 0.1}\n", r"'train' twice, in the lines 1 and 3"),
        ("train:\n  lr: 0.1\n  'lr': 0.2\n", r"'lr' twice, in the lines 2 and 3"),
        ("chain:\n- {name: a, name: b}\n", r"'name' twice, in the lines 2 and 2"),
        ("train: &t\n  lr: *t\n", r"line 1: a value with the anchor & contains itself"),
        (BOMB, r"more than 100,000 values"),
        ("a: " + "[" * 3000 + "]" * 3000, r"nested too deep"),
        ("train: \x00", r"is no valid YAML"),
        ("train:\n\tlr: 0.1\n", r"is no valid YAML.*line 2"),
        ("train: {lr: 2020-13-45}", r"holds a value that YAML cannot read: month"),
        ("train: !!python/object:os.system {}", r"is no valid YAML"),
        ("a: *nowhere", r"is no valid YAML"),
        ("train: {stepsize: [20:40]}", r"line 1: YAML reads 20:40 as a number in base 60; write a list as"),
        ("train:\n  seed: 010", r"line 2: YAML reads 010 as a number in base 8"),
    ],
    ids=range(13),
)
def test_what_yaml_hides_is_refused_with_file_and_line(tmp_path, content, message):
    with pytest.raises(ConfigError, match=rf"(?s)own\.yaml.*{message}"):
        load(tmp_path, content)


def test_anchors_and_merges_that_repeat_no_key_are_read():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n", "text") == {
        "a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]
    }  # fmt: skip
    assert parse_yaml("", "text") is None
    assert parse_yaml("[0, 10, 1_0, 0x10, '010', '1:30', 1.5, -0.0]", "text") == [0, 10, 10, 16, "010", "1:30", 1.5, 0]


def test_numbers_that_yaml_takes_for_texts_are_numbers_in_lists_too(tmp_path):
    config = load(tmp_path, "data: {norm_mean: [4e-1, 0.5, 5e-1]}\ntrain: {lr: 3e-4, stepsize: ['5', 6]}\n")
    assert (config.data.norm_mean, config.train.lr, config.train.stepsize) == ([0.4, 0.5, 0.5], 3e-4, [5, 6])


def test_bases_that_multiply_are_counted(tmp_path):
    for level in range(5):
        below = f"_BASE_: [{', '.join([f'level{level + 1}.yaml'] * 8)}]\n"
        (tmp_path / f"level{level}.yaml").write_text(below)
    (tmp_path / "level5.yaml").write_text("train: {max_epoch: 2}\n")
    with pytest.raises(ConfigError, match=r"level0\.yaml builds upon more than 1000 files"):
        load_config(tmp_path / "level0.yaml")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "base.yaml").write_text("data: {save_dir: ~/log, root: ~/data}\nmodel: {load_weights: ~/w.pth}\n")
    (tmp_path / "own.yaml").write_text("_BASE_: ~/base.yaml\ndata: {transforms: [~/a.pth, b~.pth]}\n")
    config = load_config("~/own", ["model.resume", "~/r.pth"])
    found = [config.data.save_dir, config.data.root, config.model.load_weights, config.model.resume]
    assert found == [str(tmp_path / name) for name in ("log", "data", "w.pth", "r.pth")]
    assert config.data.transforms == [str(tmp_path / "a.pth"), "b~.pth"]


def test_a_tilde_on_the_command_line_that_no_shell_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    parsed = parse(parser_of("train", ""), ["--root=~/data", "--import", "~/own.py", "model.resume", "~/r.pth"])
    assert (parsed.root, parsed.modules, parsed.opts) == (
        f"{tmp_path}/data", [f"{tmp_path}/own.py"], ["model.resume", f"{tmp_path}/r.pth"]
    )  # fmt: skip
