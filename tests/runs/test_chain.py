"""Running chains."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import configure_chain, main, parse

import torchreid_ptl
from torchreid_ptl.build.networks import build_model
from torchreid_ptl.config.loading import load_config
from torchreid_ptl.data.drawn import DrawnPedestrians, Recipe
from torchreid_ptl.engines import ImagePTLEngine
from torchreid_ptl.runs import Chain, Run
from torchreid_ptl.runtime.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
TINY, OTHER = "drawn_pedestrians_tiny", "drawn_pedestrians_other"
TEXT = f"""
model: {{name: osnet_x0_25, pretrained: False}}
data: {{height: 64, width: 32, workers: 0, save_dir: log}}
train: {{max_epoch: 1, batch_size: 4}}
chain:
  - {TINY}
  - name: cells
    model: {{name: osnet_x0_25_ptl}}
    data: {{sources: [{OTHER}]}}
    train: {{max_epoch: 3}}
"""


class OtherDrawnPedestrians(DrawnPedestrians):
    """As many identities as in the tiny set, but other people."""

    dataset_dir = OTHER
    recipe = Recipe(seed=2, train_ids=4, test_ids=3, distractor_ids=1, cameras=2, images_per_camera=2)


@pytest.fixture(scope="module", autouse=True)
def _two_sets_and_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torchreid_ptl.host.register_image_dataset(OTHER, OtherDrawnPedestrians)
    yield
    torchreid_ptl.host.image_datasets().pop(OTHER)
    torch.set_num_threads(threads)


def chain(folder, root, *more, text=TEXT):
    folder.mkdir(exist_ok=True)
    (folder / "chain.yaml").write_text(text)
    return [
        "--config-file",
        str(folder / "chain.yaml"),
        "--root",
        str(root),
        "data.save_dir",
        str(folder / "log"),
        *more,
    ]


def weights(folder, stage, epoch):
    return load_checkpoint(folder / "log" / stage / "model" / f"model.pth.tar-{epoch}")["state_dict"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_root):
    """A chain of two stages that ran through."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(chain(folder, tiny_root)) == 0
    return folder


@pytest.fixture
def copy(whole, tmp_path, tiny_root):
    """A copy of it and the command to go on with it."""
    shutil.copytree(whole / "log", tmp_path / "log")
    return tmp_path / "log", lambda *more, text=TEXT: chain(tmp_path, tiny_root, *more, text=text)


def test_the_summary_shows_what_the_stages_left(whole):
    folder = whole / "log"
    content = json.loads((folder / "results.json").read_text())
    rows = list(csv.DictReader((folder / "chain.csv").read_text().splitlines()))
    table = (folder / "chain.md").read_text().splitlines()
    assert [row["folder"] for row in content["stages"]] == [f"1-{TINY}", "2-cells"]
    assert [row["begins_from"] for row in content["stages"]] == ["", f"1-{TINY}"]
    assert {"torch", "seed"} <= set(content["provenance"])
    for row, line, written in zip(content["stages"], rows, table[2:], strict=True):
        own = json.loads((folder / row["folder"] / "results.json").read_text())["targets"]
        assert list(own) == [TINY, OTHER]
        assert row["targets"] == own
        figures = [100 * score for name in own for score in (own[name]["mAP"], own[name]["cmc"]["1"])]
        names = [f"{name} {figure}" for name in own for figure in ("mAP", "rank-1")]
        assert [line[name] for name in names] == [f"{figure:.2f}" for figure in figures]
        assert re.findall(r"\d+\.\d\d", written) == [f"{figure:.2f}" for figure in figures]


def test_a_stage_begins_from_the_stage_before(whole):
    """What the second stage was begun with is in its own configuration."""
    config = json.loads((whole / "log" / "2-cells" / "results.json").read_text())["config"]
    assert config["model"]["load_weights"] == str(whole / "log" / f"1-{TINY}" / "model" / "model.pth.tar-1")
    assert config["model"]["load_classifier"] is False
    assert config["train"]["max_epoch"] == 3


@pytest.mark.parametrize("keep", [True, False])
def test_a_new_classifier_where_there_are_as_many_identities(small_model, tmp_path, keep):
    from torchreid_ptl.runtime.weights import load_weights

    one, other = small_model(), small_model()
    begun = {name: value.clone() for name, value in other.state_dict().items()}
    load_weights(other, one.state_dict(), classifier=keep)
    for name, value in other.state_dict().items():
        new = "classifier" in name and not keep
        assert torch.equal(value, begun[name] if new else one.state_dict()[name]), name


@pytest.mark.parametrize("keep", [True, False])
def test_the_command_takes_the_classifier_or_leaves_it(whole, keep):
    stage = whole / "log" / f"1-{TINY}"
    options = ["model.load_weights", str(stage / "model" / "model.pth.tar-1"), "model.load_classifier", str(keep)]
    model = build_model(load_config(stage / "config.yaml", options), 4, "softmax")
    trained = weights(whole, f"1-{TINY}", 1)
    assert torch.equal(model.conv1.conv.weight, trained["conv1.conv.weight"])
    assert torch.equal(model.classifier.weight, trained["classifier.weight"]) == keep


def test_the_written_configuration_runs_the_same_chain(copy, capsys):
    folder, _ = copy
    before = weights(folder.parent, "2-cells", 3)
    assert main(["--config-file", str(folder / "config.yaml"), "data.save_dir", str(folder), "--resume"]) == 0
    out = capsys.readouterr().out
    assert out.count(": done\n") == 2
    assert (folder / "chain.md").read_text() in out
    assert all(torch.equal(before[key], value) for key, value in weights(folder.parent, "2-cells", 3).items())


KILLED = f"""
import os, signal, sys
sys.path[:0] = {[str(ROOT), str(Path(__file__).parent), str(ROOT / "tests")]!r}
import torch
import test_chain
from torchreid_ptl.engines import ImagePTLEngine
torch.set_num_threads(1)
test_chain.torchreid_ptl.host.register_image_dataset(test_chain.OTHER, test_chain.OtherDrawnPedestrians)
step = ImagePTLEngine.forward_backward
def killed(self, data):
    if self.max_epoch == 3 and self.epoch == 1 and self.batch_idx == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, data)
ImagePTLEngine.forward_backward = killed
test_chain.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_chain_killed_in_its_second_stage_goes_on_bit_by_bit(whole, tiny_root, tmp_path, capsys):
    arguments = chain(tmp_path, tiny_root)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, *arguments], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    second = tmp_path / "log" / "2-cells"
    assert [path.name for path in (second / "model").iterdir()] == ["model.pth.tar-1"]
    assert not (second / "results.json").exists()
    assert main([*arguments, "--resume"]) == 0
    out = capsys.readouterr().out
    assert f"Stage 1 of 2, {TINY}: done" in out
    assert "model.pth.tar-1: 1 epoch(s) done" in out
    for stage, epoch in ((f"1-{TINY}", 1), ("2-cells", 3)):
        resumed = weights(tmp_path, stage, epoch)
        assert all(torch.equal(value, resumed[key]) for key, value in weights(whole, stage, epoch).items())
    assert (tmp_path / "log" / "chain.md").read_text() == (whole / "log" / "chain.md").read_text()


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_a_chain_that_stops_says_how_to_go_on(copy, monkeypatch, capsys, error):
    folder, command = copy
    shutil.rmtree(folder / "2-cells")

    def stop(self, **_):
        raise error

    monkeypatch.setattr(ImagePTLEngine, "train", stop)
    assert main(command("--resume")) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    told = f"The chain stopped. Its files are kept in {folder}; the same command with --resume continues it.\n"
    if isinstance(error, KeyboardInterrupt):
        told = "Stopped by Ctrl-C. What is complete is kept. To go on: "
    assert told in capsys.readouterr().err
    assert (folder / f"1-{TINY}" / "results.json").is_file()


def test_a_stage_whose_beginning_was_trained_again_is_trained_again(copy, monkeypatch):
    folder, command = copy
    (folder / f"1-{TINY}" / "model" / "model.pth.tar-1").unlink()
    (folder / f"1-{TINY}" / "model" / "model-best.pth.tar").unlink()
    results = (folder / "2-cells" / "results.json").read_text()
    trained = []

    def finish(run, resume, **_):
        """Writes what a stage has to."""
        trained.append((run.folder.name, resume))
        (run.folder / "results.json").write_text(results)

    monkeypatch.setattr(Run, "execute", finish)
    assert main(command("--resume")) == 0
    assert trained == [(f"1-{TINY}", False), ("2-cells", True)]  # the first moves its results aside


@pytest.mark.slow
def test_a_stage_without_results_is_tested_and_not_trained_again(copy, capsys, monkeypatch):
    folder, command = copy
    (folder / f"1-{TINY}" / "results.json").unlink()
    monkeypatch.setattr(ImagePTLEngine, "train", lambda *_, **__: pytest.fail("trained again"))
    assert main(command("--resume")) == 0
    assert "Stage 2 of 2, cells: done" in capsys.readouterr().out
    assert (folder / f"1-{TINY}" / "results.json").is_file()


@pytest.mark.slow
def test_another_test_is_made_of_all_stages_and_none_is_trained_again(copy, capsys, monkeypatch):
    folder, command = copy
    monkeypatch.setattr(ImagePTLEngine, "train", lambda *_, **__: pytest.fail("trained again"))
    assert main(command("test.dist_metric", "cosine", "--resume")) == 0
    assert ": done" not in capsys.readouterr().out
    metrics = [json.loads(path.read_text())["config"]["test"]["dist_metric"] for path in folder.glob("*/results.json")]
    assert metrics == ["cosine"] * 2


@pytest.mark.parametrize(
    ("more", "changed", "message"),
    [
        (["train.lr", "0.5"], TEXT, "Stage 1: train.lr was 0.0003 and is 0.5. Resume with the settings"),
        (["model.load_classifier", "False"], TEXT, "Stage 1: model.load_classifier was True and is False"),
        ([], TEXT.replace("name: cells", "name: cell"), "Stage 2: name was 'cells' and is 'cell'; folder was"),
        ([], TEXT.replace("max_epoch: 3", "max_epoch: 2"), "Stage 2: train.max_epoch was 3 and is 2"),
        (["chain", f"[{OTHER}]"], TEXT, "Stage 1: name was"),
        ([], f"{TEXT}  - {{name: third, data: {{sources: [{TINY}]}}}}\n", "Stage 3: 'third' was not there"),
    ],
)  # fmt: skip
def test_another_chain_is_not_resumed(copy, capsys, more, changed, message):
    folder, command = copy
    before = sorted(folder.rglob("*"))
    assert main(command(*more, "--resume", text=changed)) == 1
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_a_shorter_chain_is_another_one(copy, capsys):
    _, command = copy
    shorter = TEXT[: TEXT.index("  - name")]
    assert main(command("data.targets", f"['{TINY}', '{OTHER}']", "--resume", text=shorter)) == 1
    assert "Stage 2: it was 'cells' and is not there now" in capsys.readouterr().err


def test_settings_that_change_neither_weights_nor_figures_may_differ(copy):
    _, command = copy
    assert main(command("train.print_freq", "7", "data.workers", "1", "test.visrank", "True", "--resume")) == 0


TAUGHT = f"""
model: {{name: osnet_x0_25}}
data: {{height: 64, width: 32, targets: [{TINY}]}}
chain:
  - {{name: teacher, model: {{name: osnet_x0_25_ptl}}, data: {{sources: [{TINY}]}}}}
  - {{name: student, loss: {{name: std}}, std: {{teacher: osnet_x0_25_ptl}}, data: {{sources: [{TINY}]}}}}
"""


def test_a_student_whose_teacher_was_trained_again_is_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "has_final_weights", lambda run: (run.folder / "results.json").is_file())
    monkeypatch.setattr(Run, "is_finished", Run.has_final_weights)
    monkeypatch.setattr(Run, "check", lambda run, **_: None)
    monkeypatch.setattr(Chain, "_summarise", lambda _: [])
    student = tmp_path / "log" / "2-student"
    plan = configure_chain(parse(chain(tmp_path, "/nowhere", text=TAUGHT)))
    plan._prepare(resume=False)
    student.mkdir()
    (student / "results.json").write_text("{}")

    def stopped(run, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "execute", stopped)
    with pytest.raises(KeyboardInterrupt):
        plan.execute(resume=True)  # while the teacher is trained again
    (tmp_path / "log" / "1-teacher").mkdir()
    (tmp_path / "log" / "1-teacher" / "results.json").write_text("{}")
    ran = []
    monkeypatch.setattr(Run, "execute", lambda run, **_: ran.append(run.folder.name))
    plan.execute(resume=True)
    assert ran == ["2-student"]


def test_a_stage_of_another_chain_is_not_taken_for_done(copy, capsys):
    folder, command = copy
    other = load_checkpoint(folder / f"1-{TINY}" / "model" / "model.pth.tar-1")
    other["config"]["train"]["lr"] = 0.125
    save_checkpoint(other, folder / f"1-{TINY}" / "model" / "model.pth.tar-1")
    assert main(command("--resume")) == 1
    assert "holds a run with other settings: train.lr was 0.125 and is 0.0003" in capsys.readouterr().err


def test_weights_that_would_be_moved_aside_are_refused(copy, capsys):
    folder, command = copy
    needed = folder / "2-cells" / "model" / "model.pth.tar-3"
    assert main(command("model.load_weights", str(needed))) == 1
    assert "would be moved aside for the new chain" in capsys.readouterr().err
    assert needed.is_file()


def test_a_student_learns_from_the_stage_before(tmp_path, capsys):
    assert main([*chain(tmp_path, "/nowhere", text=TAUGHT)[:2], "--dry-run"]) == 0
    assert re.search(r"its teacher is .*/1-teacher/model/model.pth.tar-1 \(stage 1\)", capsys.readouterr().out)


@pytest.mark.parametrize("text", ["{", "{}", '{"stages": [1]}', '{"stages": [{"name": "x"}]}'])
def test_a_plan_that_cannot_be_read(copy, capsys, text):
    folder, command = copy
    (folder / "chain.json").write_text(text)
    assert main(command("--resume")) == 1
    assert "cannot be read as the plan of a chain" in capsys.readouterr().err


def test_a_folder_without_a_plan_is_not_resumed(copy, capsys):
    folder, command = copy
    (folder / "chain.json").unlink()
    assert main(command("--resume")) == 1
    error = capsys.readouterr().err
    assert f"has no chain.json and cannot be resumed, but it holds results.json, 1-{TINY}/results.json" in error
    assert "begin anew without --resume" in error


def test_a_single_run_in_the_folder_of_a_chain(copy, tiny_root, capsys):
    folder, _ = copy
    assert main(["--root", str(tiny_root), "-s", TINY, "-t", TINY, "data.save_dir", str(folder)]) == 1
    assert f"{folder} holds a chain (chain.json) and this is a single run" in capsys.readouterr().err


def test_a_new_chain_in_a_used_folder_moves_everything_aside(copy, monkeypatch, capsys):
    folder, command = copy
    (folder / "model").mkdir()
    monkeypatch.setattr(Run, "execute", lambda *_, **__: None)
    monkeypatch.setattr(Chain, "_summarise", lambda _: [])
    assert main(command("chain", f"[{OTHER}]")) == 0
    assert "Moved what an earlier run left" in capsys.readouterr().out
    moved = {"chain.json", "chain.md", "chain.csv", "results.json", "config.yaml", f"1-{TINY}", "2-cells", "model"}
    assert {path.name for path in (folder / "earlier-1").iterdir()} == moved
    assert {path.name for path in folder.iterdir()} == {"earlier-1", "chain.json", "config.yaml"}


def test_nothing_to_resume_begins(tmp_path, tiny_root, monkeypatch, capsys):
    monkeypatch.setattr(Run, "execute", lambda *_, **__: None)
    monkeypatch.setattr(Chain, "_summarise", lambda _: [])
    assert main(chain(tmp_path, tiny_root, "--resume")) == 0
    assert "Nothing to resume" in capsys.readouterr().out
    assert (tmp_path / "log" / "chain.json").is_file()


def test_a_missing_data_set_of_a_later_stage_stops_before_anything_is_written(tmp_path, tiny_root, capsys):
    assert main(chain(tmp_path, tiny_root, "chain", f"[{TINY}, msmt17]", "data.targets", f"['{TINY}']")) == 1
    assert "Stage 2 ('msmt17'): The folder of data set 'msmt17' is missing" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


def test_a_dry_run_passes_weights_on_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path / "tmp")
    assert main([*chain(tmp_path, "/nowhere")[:2], "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "Dry run of 2 stages done: each 2 steps of 8 synthetic images" in out
    assert re.search(rf"Loading .*/1-{TINY}/model/model.pth.tar-1\n5\d\d of 623 entries", out)
    assert "with a new classifier" in out
    assert os.listdir(tmp_path / "tmp") == []
    assert sorted(os.listdir(tmp_path)) == ["chain.yaml", "tmp"]
