"""The benchmark that compares methods of backward-compatible training."""

import importlib
import json
from pathlib import Path

import pytest
import torch
import torchreid

from torchreid_ptl.config.loading import ConfigError
from torchreid_ptl.evaluation import Descriptors, EvaluationOptions

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = "drawn_pedestrians_tiny"
RBCL = "rbcl@compat.rbcl.weight=2"


@pytest.fixture
def methods(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("compatible_methods")


def command(methods, *arguments):
    parsed = methods.read([*map(str, arguments)])
    return parsed.work(parsed)


def squeezed(table):
    return [" ".join(line.split()) for line in table.splitlines()]


def made(out, variant, seed, cross, own, old=0.4):
    tests = {"cross_test": cross, "self_test": own, "old_test": old}
    results = {name: {"mAP": score, "cmc1": score} for name, score in tests.items()}
    results |= {"compatible": cross > old, "backfill": [{"negative_flips": 0.1}], "backfill_area": {"mAP": 0.5}}
    content = {"setting": "s", "variant": variant, "seed": seed, "results": {"t": results}}
    (out / f"{variant}-{seed}.json").write_text(json.dumps(content))


def test_two_methods_on_drawn_images(tmp_path, tiny_root, methods, capsys):
    torch.manual_seed(0)
    model = torchreid.models.build_model("osnet_x0_25", 4, pretrained=False, use_gpu=False)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "old.pth")
    arguments = [
        "run", "--setting", "osnet_cross_domain", "--seeds", "1", "--methods", "independent", RBCL, "--out", tmp_path,
        "--root", tiny_root, "compat.old_weights", tmp_path / "old.pth", "compat.bank", tmp_path / "bank.npy",
        "data.sources", f"['{TINY}']", "data.targets", f"['{TINY}']", "model.pretrained", "False", "data.height", "64",
        "data.width", "32", "compat.old_height", "64", "compat.old_width", "32", "train.batch_size", "8",
        "train.max_epoch", "1", "data.workers", "0", "train.precision", "float32",
    ]  # fmt: skip
    command(methods, *arguments)
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json") if path.name != "bank.json"}
    assert {run["variant"] for run in found.values()} == {"independent", RBCL}
    old = [run["results"][TINY]["old_test"] for run in found.values()]
    assert old[0] == old[1]
    assert len(list(tmp_path.glob("old-*.pt"))) == 1
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    command(methods, *arguments)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    path = next(tmp_path.glob("*independent-1.json"))
    before = json.loads(path.read_text())["results"]
    path.unlink()  # as if it had been stopped after the training
    command(methods, *arguments)
    assert json.loads(path.read_text())["results"] == before
    assert not list(tmp_path.glob("*/seed-1/earlier-*"))  # nothing was trained again
    with pytest.raises(ConfigError, match=r"is of other settings: train\.lr"):
        command(methods, *arguments, "train.lr", "0.1")
    capsys.readouterr()
    command(methods, "table", tmp_path)
    assert "| rbcl (compat.rbcl.weight=2) | 1 |" in " ".join(capsys.readouterr().out.split())


def test_the_table(tmp_path, methods):
    for seed, (cross, own) in {1: (0.5, 0.6), 2: (0.56, 0.66)}.items():
        made(tmp_path, "independent", seed, 0.1, own)
        made(tmp_path, "rbcl", seed, cross, own)
        made(tmp_path, "rbcl@model.name=other", seed, cross, own)
    lines = squeezed(methods.table(tmp_path))
    assert lines[0] == "s, t: old test mAP 40.00, CMC-1 40.00"
    assert "| rbcl | 1, 2 | 53.00 (4.24) | 53.00 (4.24) | 63.00 (4.24) | 63.00 (4.24) | 0.55 (0.08) |" in lines[5]
    assert lines[5].endswith("| 10.00 (0.00) | 50.00 (0.00) | 2 of 2 |")
    assert "| 63.00 (4.24) | |" in lines[6]  # no independent run of this network
    made(tmp_path, "bct", 1, 0.5, 0.6, old=0.3)
    with pytest.raises(ValueError, match="different old models"):
        methods.table(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no results"):
        methods.table(tmp_path / "none")


def test_an_independent_model_below_the_old_one_has_no_gain(tmp_path, methods):
    made(tmp_path, "independent", 1, 0.1, 0.3)
    made(tmp_path, "rbcl", 1, 0.2, 0.5)
    assert "| 50.00 | | 10.00 |" in squeezed(methods.table(tmp_path))[5]


def test_figures_are_rounded_down(methods):
    assert [methods.cut(value) for value in (0.999, 58.0, -0.613, 0.29)] == ["0.99", "58.00", "-0.62", "0.29"]


def test_a_setting_without_a_value(tmp_path, methods):
    with pytest.raises(ConfigError, match="a method is METHOD or METHOD@KEY=VALUE"):
        methods.sweep_of("osnet_cross_domain", "rbcl@compat.rbcl.weight", [1], tmp_path, [])


def test_an_independent_model_of_another_dimension_is_tested_alone(methods):
    sides = [Descriptors(torch.randn(4, 6), torch.arange(4) % 2, torch.full((4,), camera)) for camera in (0, 1)]
    found = methods.compared(sides, [torch.randn(4, 5)] * 2, "error", EvaluationOptions())
    assert set(found) == {"self_test", "old_test"}
