"""Tests of weights take images, metric and descriptors from what their training recorded."""

import json

import pytest
import torch
from PIL import Image

from torchreid_ptl.cli import compatibility, evaluate, train

TINY = "drawn_pedestrians_tiny"
NORM = ["data.norm_mean", "[0.3, 0.4, 0.5]", "data.norm_std", "[0.3, 0.2, 0.1]"]


def trained(folder, root, *more):
    """The folder of a short training of the smallest network."""
    command = ["--root", str(root), "-s", TINY, "-t", TINY, "model.pretrained", "False", "train.max_epoch", "1"]
    command += ["data.workers", "0", "train.batch_size", "8", "data.save_dir", str(folder), *more]
    assert train.main(command) == 0
    return folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def score(folder):
    return results(folder)["targets"][TINY]["mAP"]


def best(folder):
    return str(folder / "model" / "model-best.pth.tar")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_root):
    """Two trainings that differ in model, size, normalisation, metric and descriptors."""
    place = tmp_path_factory.mktemp("recorded")
    own = ["model.name", "osnet_x0_25", "data.height", "64", "data.width", "32", *NORM]
    other = ["model.name", "osnet_x0_25_ptl", "ptl.cells", "False", "data.height", "48", "data.width", "48"]
    return (
        trained(place / "one", tiny_root, *own),
        trained(place / "two", tiny_root, *other, "test.dist_metric", "cosine", "eval.flip", "True"),
    )


@pytest.fixture
def tested(tmp_path, tiny_root):
    """Evaluates weights by the command; the folder of the results."""

    def evaluated(weights, *more):
        folder = tmp_path / "test"
        command = ["--weights", weights, "--root", str(tiny_root), "-t", TINY, "--save-dir", str(folder)]
        assert evaluate.main([*command, "data.workers", "0", *more]) == 0
        return folder

    return evaluated


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_weights_alone_give_the_score_of_their_training(runs, tested, capsys, which):
    folder = tested(best(runs[which]), "--save-features")
    assert score(folder) == score(runs[which])
    out = capsys.readouterr().out
    (said,) = [line for line in out.splitlines() if line.startswith("Images and descriptors: ")]
    assert f"as {best(runs[which])} records; the defaults differ: data.height 256, data.width 128" in said
    assert "(source)" not in out.partition("Images and")[2]
    found = results(folder)
    assert found["model"]["settings"] == results(runs[which])["model"]["settings"]
    assert found["model"]["settings_from"] == f"as {best(runs[which])} records"
    assert "model: settings.data.height" in (folder / "report.html").read_text()
    files = [str(folder / f"features_{TINY}_{side}.npz") for side in ("query", "gallery")]
    metric = found["model"]["settings"]["test.dist_metric"]
    again = [
        "--query",
        files[0],
        "--gallery",
        files[1],
        "--save-dir",
        str(folder / "files"),
        "test.dist_metric",
        metric,
    ]
    assert evaluate.main(again) == 0
    assert results(folder / "files")["targets"]["features"]["mAP"] == score(folder)


@pytest.mark.slow
def test_what_is_given_wins_and_is_said(runs, tested, capsys):
    folder = tested(best(runs[0]), "data.height", "48", "test.dist_metric", "cosine")
    settings = results(folder)["model"]["settings"]
    assert (settings["data.height"], settings["data.width"], settings["test.dist_metric"]) == (48, 32, "cosine")
    assert "data.height (recorded: 64), test.dist_metric (recorded: euclidean)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_test_by_the_command_that_trains_takes_them_too(runs, tmp_path, tiny_root):
    command = ["--root", str(tiny_root), "-t", TINY, "test.evaluate", "True", "data.workers", "0"]
    loaded = [*command, "model.load_weights", best(runs[1]), "data.save_dir", str(tmp_path / "loaded")]
    assert train.main(loaded) == 0
    assert score(tmp_path / "loaded") == score(runs[1])
    resumed = [*command, "model.resume", best(runs[0]), "data.save_dir", str(tmp_path / "resumed")]
    assert train.main(resumed) == 0
    assert score(tmp_path / "resumed") == score(runs[0])


@pytest.mark.slow
def test_each_version_of_a_comparison_has_its_own(runs, tmp_path, tiny_root, capsys):
    versions = ["--version", "osnet_x0_25", best(runs[0]), "--version", "osnet_x0_25_ptl", best(runs[1])]
    folder = tmp_path / "compared"
    command = [*versions, "--root", str(tiny_root), "-t", TINY, "--save-dir", str(folder), "data.workers", "0"]
    assert compatibility.main(command) == 0
    found = results(folder)
    for name, run in zip(("v1", "v2"), runs, strict=True):
        assert found["versions"][name]["alone"][TINY]["mAP"] == score(run)
        assert found["versions"][name]["settings"] == results(run)["model"]["settings"]
    # by cosine, as a comparison is, the second one has its own score
    assert found["targets"][TINY]["matrix"]["mAP"][1][1] == pytest.approx(score(runs[1]), abs=1e-6)
    out = capsys.readouterr().out
    assert f"v1 alone on {TINY}, by its own metric (euclidean)" in out
    assert out.count("Images and descriptors: ") == 2
    assert "settings.data.height 64" in (folder / "report.html").read_text()


def test_weights_that_record_nothing_say_so(small_model, tmp_path, tested, capsys):
    torch.save({"state_dict": small_model().state_dict(), "config": "none"}, tmp_path / "plain.pth")
    folder = tested(str(tmp_path / "plain.pth"), "--model", "osnet_x0_25_ptl", "data.height", "64", "data.width", "32")
    assert f"not recorded in {tmp_path}/plain.pth, so by default or as given: data.height" in capsys.readouterr().out
    assert results(folder)["model"]["settings"]["data.height"] == 64


def test_a_record_that_is_no_number_is_named_and_can_be_overruled(small_model, tmp_path, tested, capsys):
    path = str(tmp_path / "odd.pth")
    torch.save({"state_dict": small_model().state_dict(), "config": {"data": {"height": "tall", "width": 32}}}, path)
    assert evaluate.main(["--model", "osnet_x0_25_ptl", "--weights", path, "-t", TINY]) != 0
    assert f"data.height in {path} is 'tall'" in capsys.readouterr().err
    tested(path, "--model", "osnet_x0_25_ptl", "data.height", "64")


@pytest.mark.slow
@pytest.mark.parametrize("images", [0, 1])
def test_a_set_with_few_or_no_training_images_is_tested(small_model, tmp_path, images):
    base = tmp_path / "market1501" / "Market-1501-v15.09.15"
    for folder, cameras in (("query", [1]), ("bounding_box_test", [1, 2]), ("bounding_box_train", [1] * images)):
        if cameras:
            (base / folder).mkdir(parents=True)
        for pid, camera in [(pid, camera) for pid in (1, 2) for camera in cameras]:
            path = base / folder / f"{pid:04d}_c{camera}s1_000001_00.jpg"
            Image.new("RGB", (16, 32), (100 * pid, 50 * camera, 90)).save(path)
    torch.save(small_model().state_dict(), tmp_path / "w.pth")
    command = ["--model", "osnet_x0_25_ptl", "--weights", str(tmp_path / "w.pth"), "--root", str(tmp_path), "-t"]
    command += ["market1501", "--save-dir", str(tmp_path / "out"), "data.height", "64", "data.width", "32"]
    assert evaluate.main([*command, "data.workers", "0"]) == 0
    assert list(results(tmp_path / "out")["targets"]) == ["market1501"]
    if not images:
        command[command.index("market1501")] = "holdout50:market1501"  # it is cut from them
        assert evaluate.main(command) != 0
