"""The command that evaluates."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from torchreid_ptl.cli.evaluate import main
from torchreid_ptl.data.features import FeatureFile, save_features

ROOT = Path(__file__).parents[2]
TINY = "drawn_pedestrians_tiny"


@pytest.fixture
def weights(small_model, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": small_model().state_dict()}, path)
    return path


@pytest.fixture
def files(tmp_path):
    """Features of 12 queries and of 60 gallery images in three pieces."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((6, 8))
    pids, camids = np.arange(60) % 6, np.arange(60) % 4
    gallery = centres[pids] + 0.5 * rng.standard_normal((60, 8))
    for piece, rows in enumerate(np.split(np.arange(60), [7, 30])):
        save_features(tmp_path / f"gallery_{piece}.npz", gallery[rows], pids[rows], camids[rows])
    save_features(tmp_path / "gallery.pt", gallery, pids, camids)
    save_features(tmp_path / "query.npz", centres[pids[:12]] + 0.5, pids[:12], np.full(12, 9))
    return tmp_path


def model_command(tmp_path, root, weights, *more):
    return [
        "--model", "osnet_x0_25_ptl", "--weights", str(weights), "--root", str(root), "-t", TINY, "--save-dir",
        str(tmp_path / "out"), *more, "data.height", "64", "data.width", "32", "data.workers", "0",
    ]  # fmt: skip


def test_a_model_leaves_results_scores_of_queries_pictures_and_a_report(tmp_path, tiny_root, weights, capsys):
    assert main(model_command(tmp_path, tiny_root, weights, "--save-features", "test.rerank", "True")) == 0
    folder = tmp_path / "out"
    target = json.loads((folder / "results.json").read_text())["targets"][TINY]
    assert 0 < target["mAP"] <= 1
    assert target["verification"]["genuine_pairs"] > 0
    with open(folder / f"queries_{TINY}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["query"]) for row in rows] == list(range(6))
    assert Path(rows[0]["path"]).is_file()
    assert np.mean([float(row["average_precision"]) for row in rows]) == pytest.approx(target["mAP"], abs=1e-5)
    for name in ("cmc.png", f"roc_{TINY}.png", f"scores_{TINY}.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert f"osnet_x0_25_ptl on {TINY}" in page
    assert "lowest average precision first" in page
    assert page.count("unreadable") == 0
    assert "same person: squared Euclidean distance" in capsys.readouterr().out

    again = [
        "--query",
        str(folder / f"features_{TINY}_query.npz"),
        "--gallery",
        str(folder / f"features_{TINY}_gallery.npz"),
    ]
    assert main([*again, "--save-dir", str(tmp_path / "files"), "test.rerank", "True"]) == 0
    found = json.loads((tmp_path / "files" / "results.json").read_text())["targets"]["features"]
    assert (found["mAP"], found["cmc"]) == (target["mAP"], target["cmc"])


def test_files_of_features_in_pieces(files, tmp_path, capsys):
    pieces = [str(files / f"gallery_{piece}.npz") for piece in range(3)]
    command = ["--query", str(files / "query.npz"), "--save-dir", str(tmp_path / "out")]
    assert main([*command, "--gallery", *pieces, "test.dist_metric", "cosine"]) == 0
    first = json.loads((tmp_path / "out" / "results.json").read_text())
    assert main([*command, "--gallery", str(files / "gallery.pt"), "test.dist_metric", "cosine"]) == 0
    second = json.loads((tmp_path / "out" / "results.json").read_text())
    assert first["targets"] == second["targets"]
    assert (tmp_path / "out" / "earlier-1" / "report.html").is_file()
    assert first["model"]["gallery"].count(".npz") == 3
    assert main([*command, "--gallery", *pieces, "test.normalize_feature", "True"]) == 0
    unit = json.loads((tmp_path / "out" / "results.json").read_text())
    assert unit["targets"]["features"]["mAP"] == pytest.approx(first["targets"]["features"]["mAP"])
    assert "1 - cosine" in capsys.readouterr().out


def test_files_that_lie_where_results_go_and_are_called_like_sections(files, monkeypatch):
    monkeypatch.chdir(files)
    (files / "log" / "evaluation").mkdir(parents=True)
    for side, name in (("query.npz", "features_x_query.npz"), ("gallery_2.npz", "features_x_gallery.npz")):
        (files / side).rename(files / "log" / "evaluation" / name)
    inputs = [f"log/evaluation/features_x_{side}.npz" for side in ("query", "gallery")]
    for _ in range(2):
        assert main(["--query", inputs[0], "--gallery", inputs[1]]) == 0
    (files / inputs[0]).rename(files / "test.npz")
    (files / inputs[1]).rename(files / "data.npz")
    assert main(["--query", "test.npz", "--gallery", "data.npz", "data.save_dir", "elsewhere"]) == 0
    assert (files / "elsewhere" / "report.html").is_file()


def test_the_weights_asked_for_win_over_those_of_the_configuration(tmp_path, tiny_root, weights):
    config = tmp_path / "training.yaml"
    config.write_text(
        "model: {name: osnet_x0_25_ptl, resume: auto, load_weights: none.pth}\nloss: {name: triplet}\n"
        "sampler: {train_sampler: RandomIdentitySampler, num_instances: 2}\n"
    )
    command = ["--config-file", str(config), *model_command(tmp_path, tiny_root, weights)[2:]]
    assert main(command) == 0
    again = ["--config-file", str(tmp_path / "out" / "config.yaml"), *model_command(tmp_path, tiny_root, weights)[2:]]
    assert main(again) == 0


def test_a_gallery_without_matches_is_refused_before_reranking(files, capsys, monkeypatch):
    monkeypatch.setattr("torchreid_ptl.evaluation.ranking.rerank", lambda *a, **k: pytest.fail("re-ranked"))
    command = ["--query", str(files / "query.npz"), "--gallery", str(files / "query.npz"), "test.rerank", "True"]
    assert main(["--save-dir", str(files / "out"), *command]) == 1
    assert "none of the 12 queries has a match" in capsys.readouterr().err


def test_queries_asked_for(files, tmp_path, capsys):
    command = ["--query", str(files / "query.npz"), "--gallery", str(files / "gallery.pt"), "--show", "5", "2"]
    assert main(command) == 1
    assert "have no 'paths'" in capsys.readouterr().err
    for side in ("query.npz", "gallery.pt"):
        file = FeatureFile(files / side)
        save_features(files / side, file.read(), file.pids, file.camids, ["none.jpg"] * len(file.pids))
    assert main([*command, "--save-dir", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("query 5: identity 5, camera 9") < page.index("query 2: identity 2")
    assert (tmp_path / "out" / "ranklist_features.png").is_file()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "Say what to evaluate: --model NAME"),
        (["--model", "osnet_x0_25", "--query", "q.npz"], "not both; got --model, --query"),
        (["--query", "q.npz"], "--gallery is missing"),
        (["--query", "q.npz", "--gallery", "g.npz"], "There is no file of features q.npz"),
        (["--model", "osnet_x0_52", "-t", TINY], "Unknown model 'osnet_x0_52': did you mean 'osnet_x0_5'"),
        (["--model", "osnet_x0_25", "-t", TINY], "Give the weights of the model: --weights FILE"),
        (["--weights", "{files}/bare.pth", "-t", TINY], "bare.pth does not record its model: give --model NAME"),
        (["--model", "osnet_x0_25", "--weights", "imagenet", "-t", "market1502"], "did you mean 'market1501'"),
        (["--query", "{files}/query.npz", "--gallery", "{files}/gallery.pt", "--show", "x"], "numbers of queries"),
        (["--query", "{files}/query.npz", "--gallery", "{files}/gallery.pt", "--show", "12"], "0 to 11; got [12]"),
        (["--query", "{files}/query.npz", "--gallery", "{files}/gallery.pt", "test.rerankk", "True"], "test.rerank"),
        (["--query", "{files}/query.npz", "--gallery", "{files}/gallery.pt", "eval.far", "2.0"], "eval.far is 2.0"),
    ],
)
def test_bad_input(files, tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(1)}, files / "bare.pth")
    assert main([part.format(files=files) for part in command]) == 1
    assert message in capsys.readouterr().err


def test_few_people_have_no_threshold_and_everything_else(tmp_path, capsys):
    rng = np.random.default_rng(0)
    save_features(tmp_path / "q.npz", rng.random((2, 3)), [0, 1], [0, 0])
    save_features(tmp_path / "g.npz", rng.random((4, 3)), [0, 1, 0, 1], [1, 1, 2, 2])
    command = ["--query", str(tmp_path / "q.npz"), "--gallery", str(tmp_path / "g.npz")]
    assert main([*command, "--save-dir", str(tmp_path / "out")]) == 0
    assert "no threshold recommended" in capsys.readouterr().out
    assert "No threshold is recommended" in (tmp_path / "out" / "report.html").read_text()


def test_rows_of_nobody_and_queries_without_a_match_are_said(tmp_path, capsys):
    rng = np.random.default_rng(0)
    save_features(tmp_path / "q.npz", rng.random((4, 3)), [0, 1, -1, 7], [0, 0, 0, 0])
    save_features(tmp_path / "g.npz", rng.random((4, 3)), [0, 1, -1, -1], [1, 1, 2, 2])
    command = ["--query", str(tmp_path / "q.npz"), "--gallery", str(tmp_path / "g.npz")]
    assert main([*command, "--save-dir", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "1 queries and 2 gallery rows have identity -1. In files of features" in out
    assert "1 of 4 queries count in no score: identity 7 is not in the gallery" in out


@pytest.mark.slow
@pytest.mark.parametrize("command", [["tools/evaluate.py"], ["-m", "torchreid_ptl", "evaluate"]])
def test_both_entry_points(command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--save-features" in done.stdout
