"""The command that compares versions of a model."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchreid

from torchreid_ptl.cli.compatibility import main
from torchreid_ptl.data.features import FeatureFile, save_features
from torchreid_ptl.evaluation import Descriptors, EvaluationOptions, compatibility

ROOT = Path(__file__).parents[2]
TINY = "drawn_pedestrians_tiny"
SMALL = ["data.height", "64", "data.width", "32", "data.workers", "0"]


@pytest.fixture
def weights(small_model, tmp_path):
    """Two networks of the same kind that were never trained."""
    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"weights_{seed}.pth")
        torch.save({"state_dict": small_model().state_dict()}, paths[-1])
    return [str(path) for path in paths]


def described(folder, name, seed, noise, dims=8, images=60, queries=12, **changes):
    """Files of features of the same images by a model; those of the gallery in two pieces."""
    scene, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = np.pad(scene.standard_normal((6, 8)), ((0, 0), (0, max(0, dims - 8))))[:, :dims]
    pids, camids = np.arange(images) % 6, np.arange(images) % 4
    gallery = centres[pids] + noise * rng.standard_normal((images, dims))
    query = centres[np.arange(queries) % 6] + noise * rng.standard_normal((queries, dims))
    sides = {
        "query": [query, np.arange(queries) % 6, np.full(queries, 9), [f"{name}/q/{k}.jpg" for k in range(queries)]],
        "gallery": [gallery, pids, camids, [f"{name}/g/{k}.jpg" for k in range(images)]],
    }
    for side, values in changes.items():
        for place, value in values.items():
            sides[side][place] = value
    paths = [str(folder / f"{name}_{part}.npz") for part in ("query", "gallery_0", "gallery_1")]
    save_features(paths[0], *sides["query"])
    for path, rows in zip(paths[1:], (slice(0, 25), slice(25, None)), strict=True):
        save_features(path, *(column[rows] for column in sides["gallery"]))
    return paths


@pytest.fixture
def files(tmp_path):
    """Three versions in time order."""
    return [described(tmp_path, f"m{index}", index, noise) for index, noise in enumerate((1.6, 1.2, 1.0))]


def features_of(groups):
    return [part for group in groups for part in ("--features", *group)]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_two_models_leave_everything(tmp_path, tiny_root, weights, capsys):
    folder = tmp_path / "out"
    versions = [part for path in weights for part in ("--version", "osnet_x0_25_ptl", path)]
    command = [*versions, "--root", str(tiny_root), "-t", TINY, "--save-dir", str(folder), *SMALL]
    assert main(command) == 0
    found = json.loads((folder / "results.json").read_text())
    target = found["targets"][TINY]
    (update,) = target["updates"]
    assert (update["old"], update["new"]) == ("v1", "v2")
    assert target["matrix"]["mAP"][1] == [update["cross_test"]["mAP"], update["self_test"]["mAP"]]
    assert target["matrix"]["mAP"][0] == [update["old_test"]["mAP"], None]
    assert update["backfill"][0]["mAP"] == update["cross_test"]["mAP"]
    assert update["backfill"][-1]["mAP"] == update["self_test"]["mAP"]
    assert {"model": "osnet_x0_25_ptl", "weights": weights[1]}.items() <= found["versions"]["v2"].items()
    assert "not recorded in" in found["versions"]["v2"]["settings_from"]
    assert found["provenance"]["torch"] == torch.__version__
    for name in (f"matrix_{TINY}.png", f"backfill_{TINY}_v1_v2.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    rows = read(folder / f"matrix_{TINY}.csv")
    assert [row["v1"] for row in rows if row["query"] == "v2"] == [
        str(update["cross_test"]["mAP"]), str(update["cross_test"]["cmc1"]),
    ]  # fmt: skip
    assert "| v2 " in (folder / f"matrix_{TINY}.md").read_text()
    out = capsys.readouterr().out
    assert "v1, drawn_pedestrians_tiny gallery [" in out
    assert "images/s" in out
    assert f"{TINY}, v1 to v2\ncompatible: " in out
    check_report(folder, TINY, ("v1", "v2"))


def check_report(folder, target, names):
    """The page shows heat maps, the curve, and both systems' lists of flipped queries."""
    page = (folder / "report.html").read_text()
    assert f"{target}: {len(names)} versions" in page
    assert 'alt="mAP: queries by version, galleries by version"' in page
    assert 'alt="While the gallery is re-encoded"' in page
    assert page.count("data:image/png;base64") == 2 + len(names) - 1
    assert "unreadable" not in page
    old, new = names[:2]
    rows = read(folder / f"queries_{target}_{old}_{new}.csv")
    flipped = [row["query"] for row in rows if row["flip"]]
    for query in flipped[:2]:
        article = re.search(rf"<article><h4>query {query}: .*?</article>", page, flags=re.DOTALL)[0]
        first, second = article.split("<h5>")[1:]
        assert first.startswith(f"queries and gallery by {old}</h5>")
        assert second.startswith(f"queries by {new}, gallery by {old}</h5>")
        kind = next(row["flip"] for row in rows if row["query"] == query)
        right = ["1\u00a0\u2713" in part for part in (first, second)]
        assert right == [kind == "negative", kind == "positive"]
        assert 1 <= first.count("<figure") <= 5
    return flipped


def test_a_network_and_itself(tmp_path, tiny_root, weights):
    versions = ["--version", "osnet_x0_25_ptl", weights[0]] * 2
    command = [*versions, "--root", str(tiny_root), "-t", TINY, "--save-dir", str(tmp_path / "out"), *SMALL]
    assert main(["--names", "same", "again", "--independent", "osnet_x0_25_ptl", weights[1], *command]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    (update,) = found["targets"][TINY]["updates"]
    assert update["cross_test"] == update["self_test"] == update["old_test"]
    assert not update["compatible"]
    assert all(point["negative_flips"] == 0 for point in update["backfill"])
    assert update["independent"]["mAP"] > 0
    assert update["independent_cross"]["mAP"] > 0
    assert found["targets"][TINY]["matrix"]["AC"] == {"mAP": 1.0, "cmc1": 1.0}
    assert list(found["versions"]) == ["same", "again", "independent"]
    assert not check_report(tmp_path / "out", TINY, ("same", "again"))


def test_files_of_features(tmp_path, files, tiny_root):
    folder = tmp_path / "out"
    command = [*features_of(files), "--save-dir", str(folder), "--fractions", "0", "0.4", "1"]
    assert main([*command, "--independent", *files[2], "train.seed", "7"]) == 0
    found = json.loads((folder / "results.json").read_text())["targets"]["features"]
    first, second = found["updates"]
    sides = [[np.concatenate([FeatureFile(p).read() for p in part]) for part in (f[:1], f[1:])] for f in files]
    query, pieces = FeatureFile(files[0][0]), [FeatureFile(path) for path in files[0][1:]]
    labels = [(query.pids, query.camids)]
    labels.append(tuple(np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("pids", "camids")))
    old, new = (tuple(Descriptors(f, *own) for f, own in zip(sides[v], labels, strict=True)) for v in (1, 2))
    options = EvaluationOptions(seed=7)
    expected = compatibility(new, old, options, independent=new, fractions=(0, 0.4, 1)).as_dict()
    assert second["backfill"] == expected["backfill"]
    assert second["update_gain"] == expected["update_gain"]
    assert second["independent"] == expected["independent"] == expected["self_test"]
    assert first["update_gain"]["why_none"] == "no independent model was given"
    assert first["cross_test"]["mAP"] == found["matrix"]["mAP"][1][0]
    rows = read(folder / "queries_features_v1_v2.csv")
    assert list(rows[0]) == ["query", "path", "pid", "camid", "flip", "first_hit_old", "first_hit_0", "first_hit_0.4",
                             "first_hit_1"]  # fmt: skip
    assert any(row["flip"] for row in rows)
    for row in rows:
        was, is_ = row["first_hit_old"] == "1", row["first_hit_0"] == "1"
        assert row["flip"] == {(True, False): "negative", (False, True): "positive"}.get((was, is_), "")


def with_pictures(tmp_path, groups):
    """The same files with paths of images that are there."""
    from PIL import Image

    Image.new("RGB", (8, 16), (90, 120, 200)).save(tmp_path / "person.png")
    for path in (path for group in groups for path in group):
        file = FeatureFile(path)
        save_features(path, file.read(), file.pids, file.camids, [str(tmp_path / "person.png")] * len(file.pids))


def test_flipped_queries_are_on_the_page(tmp_path, files):
    with_pictures(tmp_path, files)
    folder = tmp_path / "out"
    assert main([*features_of(files), "--save-dir", str(folder), "--names", "a", "b", "c"]) == 0
    assert len(check_report(folder, "features", ("a", "b", "c"))) >= 2
    page = (folder / "report.html").read_text()
    assert "Negative flips: right with" in page
    assert "Positive flips: wrong with" in page


def test_what_an_earlier_run_left_is_kept_and_inputs_stay(tmp_path, files):
    folder = tmp_path / "out"
    folder.mkdir()
    inside = [str(folder / f"features_{Path(path).name}") for path in files[0]]
    for path, new in zip(files[0], inside, strict=True):
        Path(path).rename(new)
    for _ in range(2):
        assert main([*features_of([inside, files[1]]), "--save-dir", str(folder)]) == 0
    assert (folder / "earlier-1" / "matrix_features.csv").is_file()
    assert (folder / "earlier-1" / "backfill_features_v1_v2.png").is_file()
    assert Path(inside[0]).is_file()


def test_dimensions_under_a_rule(tmp_path, files, capsys):
    files[1] = described(tmp_path, "wide", 5, 1.0, dims=12)
    command = [*features_of(files[:2]), "--save-dir", str(tmp_path / "out")]
    assert main(command) == 1
    assert "v2 descriptors have 12 dimensions and v1 ones 8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--dimensions", "truncate"]) == 0
    assert "v2 has 12 dimensions and v1 8" in (tmp_path / "out" / "report.html").read_text()
    assert main([*command, "--dimensions", "pad", "--independent", *files[1]]) == 0


def test_models_of_different_dimensions_are_refused_before_images_are_read(
    tmp_path, tiny_root, weights, capsys, monkeypatch
):
    monkeypatch.setattr("torchreid_ptl.engines.old.extract", lambda *_: pytest.fail("images were read"))
    command = ["--root", str(tiny_root), "-t", TINY, "--save-dir", str(tmp_path / "out"), *SMALL]
    build_model = torchreid.models.build_model
    torch.save(build_model("mobilenetv2_x1_0", 4, pretrained=False).state_dict(), tmp_path / "mobile.pth")
    wide = ["--version", "mobilenetv2_x1_0", str(tmp_path / "mobile.pth")]
    assert main(["--version", "osnet_x0_25_ptl", weights[0], *wide, *command]) == 1
    assert "v2 descriptors have 1280 dimensions and v1 ones 512" in capsys.readouterr().err
    assert main(["--version", "osnet_x0_25_ptl", str(tmp_path / "mobile.pth"), *wide, *command]) == 1
    assert "belongs to another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 59}, "v2 has other gallery images than v1: 59 instead of 60"),
        ({"queries": 11}, "v2 has other query images than v1: 11 instead of 12"),
        ({"gallery": {1: (np.arange(60) + 1) % 6}}, "identity of 60 rows, of row 0 1 instead of 0"),
        ({"gallery": {2: np.r_[[7], np.arange(1, 60) % 4]}}, "camera of 1 rows, of row 0 7 instead of 0"),
        ({"query": {3: [f"x/{k + (k > 3)}.jpg" for k in range(12)]}}, "file of 8 rows, of row 4 '5.jpg' instead of '4"),
    ],
)  # fmt: skip
def test_other_images_are_named(tmp_path, files, capsys, changes, message):
    files[1] = described(tmp_path, "other", 5, 1.0, **changes)
    assert main([*features_of(files[:2]), "--save-dir", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "v2 has other" in error
    assert not (tmp_path / "out").exists()
    assert main([*features_of([files[0], files[2]]), "--independent", *files[1]]) == 1
    assert "independent has other" in capsys.readouterr().err


def test_files_without_paths_are_compared_without_them(tmp_path, files):
    for path in files[0]:
        file = FeatureFile(path)
        save_features(path, file.read(), file.pids, file.camids)
    assert main([*features_of(files[:2]), "--save-dir", str(tmp_path / "out")]) == 0
    assert "m1/q/0.jpg" in (tmp_path / "out" / "queries_features_v1_v2.csv").read_text()


def test_zero_rows_are_named(tmp_path, files, capsys):
    files[1] = described(tmp_path, "zero", 5, 0.0, dims=8, gallery={0: np.r_[np.ones((59, 8)), np.zeros((1, 8))]})
    assert main([*features_of(files), "--save-dir", str(tmp_path / "out")]) == 1
    assert "1 of 60 v2 gallery rows are zero and have no direction: 59" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "got none"),
        (["--features", "{q}", "{g}"], "Two versions or more are compared, the oldest first; got 1"),
        (["--features", "{q}", "{g}", "--version", "osnet_x0_25", "x.pth"], "got both"),
        (["--features", "{q}", "{g}", "--features", "{q}"], "v2: features come as QUERY GALLERY"),
        (["--features", "{q}", "{g}", "--features", "{q}", "none.npz"], "There is no file of features none.npz"),
        (["--features", "{q}", "{g}", "--features", "{q}", "{q}"], "v2 has other gallery images than v1"),
        (["{two}", "--names", "a"], "a name of its own for each of the 2 versions; got a"),
        (["{two}", "--names", "a", "a"], "a name of its own"),
        (["{two}", "--names", "a", "b/c"], "got 'b/c'"),
        (["{two}", "--names", "a", "independent"], "'independent' is taken"),
        (["{two}", "--fractions", "0", "x"], "--fractions takes numbers from 0 to 1; got 0 x"),
        (["{two}", "--fractions", "0", "0.5"], "rise from 0 (the cross test) to 1"),
        (["{two}", "--independent", "{q}"], "independent: features come as QUERY GALLERY"),
        (["{two}", "test.rerank", "True"], "test.rerank is True; compatibility is measured on plain rankings"),
        (["{two}", "test.rerankk", "True"], "test.rerank"),
        (["{models}", "model.name", "resnet50"], "model.name is given as KEY VALUE; versions have their own"),
        (["{models}", "-t", TINY], "There is no file of weights a.pth (v1, osnet_x0_25)"),
        (["{models}", "--independent", "osnet_x0_25"], "independent: a model comes as MODEL WEIGHTS"),
        (["{models}", "-t", "market1502"], "did you mean 'market1501'"),
        (["--version", "osnet_x0_25", "a.pth", "--version", "osnet_x0_52", "b.pth"], "did you mean 'osnet_x0_5'"),
    ],
)
def test_bad_input(tmp_path, files, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    query, gallery = files[0][0], files[0][1]
    pieces = {
        "{two}": features_of([files[0], files[1]]),
        "{models}": ["--version", "osnet_x0_25", "a.pth", "--version", "osnet_x0_25", "b.pth"],
    }
    given = [part.format(q=query, g=gallery) for word in command for part in pieces.get(word, [word])]
    assert main(given) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["tools/compatibility.py"], ["-m", "torchreid_ptl", "compatibility"]])
def test_both_entry_points(command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--independent" in done.stdout
