"""A run from Python: one folder, one configuration, finished or not."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

import torchreid_ptl
from torchreid_ptl.config.loading import ConfigError
from torchreid_ptl.engines import ImagePTLEngine, SoftmaxObjective
from torchreid_ptl.runs import Chain, Run, Sweep
from torchreid_ptl.runtime import lock
from torchreid_ptl.runtime.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from torchreid_ptl.runtime.lock import InUseError

TINY = "drawn_pedestrians_tiny"


@pytest.fixture
def settings(tmp_path, tiny_root):
    """Settings of a small run, as a tree."""
    data = {"root": str(tiny_root), "sources": [TINY], "targets": [TINY], "height": 64, "width": 32, "workers": 0}
    train = {"max_epoch": 1, "batch_size": 4, "lr_scheduler": "single_step"}
    return {"data": {**data, "save_dir": str(tmp_path / "log")}, "train": train}


def test_a_run_from_python_trains_where_there_is_no_gpu_and_knows_when_it_is_finished(settings, monkeypatch):
    run = Run.of("quickstart", **settings)
    assert run.config.use_gpu
    assert not run.is_finished()
    engine = run.execute()
    assert isinstance(engine, ImagePTLEngine)
    assert run.scores() == {TINY: (engine.results[TINY].mAP, engine.results[TINY].rank(1))}
    assert run.is_finished()
    assert run.has_final_weights()
    assert run.final_weights.name == "model.pth.tar-1"
    again = Run.of("quickstart", **settings, **{"data.workers": 1, "test.visrank": False})
    assert again.is_finished()
    other = Run.of("quickstart", **settings, **{"eval.flip": True})
    assert not other.is_finished()
    assert other.has_final_weights()
    monkeypatch.setattr(ImagePTLEngine, "train", lambda *_, **__: pytest.fail("trained again"))
    other.execute(resume=True)
    assert other.is_finished()
    with pytest.raises(ConfigError, match=r"--resume: .*log holds a run with other settings: train.gamma was 0.1 and"):
        Run.of("quickstart", **settings, **{"train.gamma": 0.5}).execute(resume=True)


def test_settings_of_another_version_that_a_training_used_are_refused(settings, tmp_path):
    run = Run.of("quickstart", **settings)
    run.execute()
    state = load_checkpoint(run.final_weights)
    state["config"]["compat"]["nccl"]["queue"] = 8192
    save_checkpoint(state, run.final_weights)
    run.check(resume=True)  # it was not used
    state["config"]["loss"]["name"], state["config"]["compat"]["losses"] = "compatible", ["nccl"]
    save_checkpoint(state, run.final_weights)
    with pytest.raises(ConfigError, match="compat.nccl.queue is unknown now"):
        run.check(resume=True)


def test_overrides_are_sections_or_dotted_keys(settings):
    config = Run.of("quickstart", **settings, **{"train.lr": 0.5}).config
    assert (config.train.lr, config.train.max_epoch, config.data.height) == (0.5, 1, 64)
    assert Run.of(config).config == config
    with pytest.raises(ConfigError, match=r"Unknown key 'train.lrr' in the arguments: did you mean 'train.lr'\?"):
        Run.of("quickstart", train={"lrr": 1})
    with pytest.raises(FileNotFoundError, match="did you mean 'quickstart'"):
        Run.of("quickstrat")
    with pytest.raises(ConfigError, match="There is no key chain"):
        Chain.of("quickstart")
    with pytest.raises(ConfigError, match="A sweep needs something to vary"):
        Sweep("quickstart")


@pytest.mark.slow
def test_train_tries_a_run_and_a_chain_without_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torchreid_ptl.train("quickstart", dry_run=True)
    torchreid_ptl.train("quickstart", chain=["drawn_pedestrians", "drawn_pedestrians"], dry_run=True)
    out = capsys.readouterr().out
    assert "Dry run of osnet_x0_25_ptl done" in out
    assert "Dry run of 2 stages done" in out
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_built_from_its_checkpoint_alone(settings, tmp_path):
    engine = Run.of("quickstart", **settings, ptl={"cells": False}, model={"embedding": 24}).execute()
    images = torch.rand(2, 3, 64, 32)
    path = tmp_path / "log" / "model" / "model.pth.tar-1"
    model = torchreid_ptl.load_model(weights=path)
    assert not model.training
    expected = engine.plain_model().eval()(images)
    assert expected.shape == (2, 24)
    torch.testing.assert_close(model(images), expected)  # another layout in memory
    assert torch.equal(torchreid_ptl.load_model("osnet_x0_25_ptl", path)(images), model(images))
    with pytest.raises(ValueError, match=r"Unknown model 'osnet_x0_25_ptt': did you mean 'osnet_x0_25_ptl'"):
        torchreid_ptl.load_model("osnet_x0_25_ptt", path)
    torch.save(load_checkpoint(path)["state_dict"], tmp_path / "plain.pth")
    with pytest.raises(ValueError, match=r"plain.pth does not contain the name of its model; give it"):
        torchreid_ptl.load_model(weights=tmp_path / "plain.pth")


def test_results_are_those_of_the_file(settings):
    run = Run.of("quickstart", **settings)
    run.folder.mkdir(parents=True)
    for text in ("", "{}", "[]", '{"targets": {}}', '{"config": 3, "targets": {}}'):
        (run.folder / "results.json").write_text(text)
        assert not run.is_finished()
    (run.folder / "results.json").write_text(json.dumps({"config": {"train": {"lr": 9.0}}, "targets": {}}))
    assert not run.is_finished()


@pytest.mark.slow
def test_rooms_are_there_after_one_import():
    code = (
        "import torchreid_ptl as t; t.data.names.ensure_registered(['class30:viper']); t.data.ImageDataManager; t.runs"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def left_without_checkpoint(folder, kept):
    """A finished run of two epochs, tested after each, of whose checkpoints only some are whole."""
    for path in (folder / "model").iterdir():
        if path.name not in kept:
            path.write_bytes(path.read_bytes()[:100])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".log-" not in path.name}


@pytest.fixture(scope="module")
def _finished(tmp_path_factory, tiny_root):
    folder = tmp_path_factory.mktemp("finished")
    data = {"root": str(tiny_root), "sources": [TINY], "targets": [TINY], "height": 64, "width": 32, "workers": 0}
    settings = {"data": {**data, "save_dir": str(folder)}, "train": {"max_epoch": 2, "batch_size": 4}}
    settings |= {"test": {"eval_freq": 1, "visrank": False}}
    Run.of("quickstart", **settings).execute()
    return folder, settings


@pytest.fixture
def finished(_finished, tmp_path):
    """A copy of the folder of a finished run, and its settings."""
    whole, settings = _finished
    shutil.copytree(whole, tmp_path / "log")
    return tmp_path / "log", {**settings, "data": {**settings["data"], "save_dir": str(tmp_path / "log")}}


@pytest.mark.parametrize("left", ["torn", "removed", "best alone is torn"])
@pytest.mark.parametrize("more", [{}, {"train.lr": 0.5}], ids=["same", "other rate"])
def test_results_without_a_checkpoint_are_not_overwritten_by_a_resume(finished, left, more):
    folder, settings = finished
    left_without_checkpoint(folder, ())
    if left != "torn":
        for path in list((folder / "model").iterdir()):
            if left == "removed" or path.name != "model-best.pth.tar":
                path.unlink()
    before = contents(folder)
    with pytest.raises(
        ConfigError, match=r"--resume: .*log holds (results.json, report.html.*no checkpoint|a run with)"
    ):
        Run.of("quickstart", **settings, **more).execute(resume=True)
    assert contents(folder) == before


def test_the_best_checkpoint_is_the_last_resort(finished, capsys, monkeypatch):
    folder, settings = finished
    state = load_checkpoint(folder / "model" / "model-best.pth.tar")
    left_without_checkpoint(folder, ("model-best.pth.tar",))
    with pytest.raises(ConfigError, match="holds a run with other settings: train.lr was"):
        Run.of("quickstart", **settings, **{"train.lr": 0.5}).execute(resume=True)
    run = Run.of("quickstart", **settings)
    before = run.scores()
    run.execute(resume=True)
    out = capsys.readouterr().out
    assert "no usable checkpoint of a single epoch: going on from the best one, model-best.pth.tar" in out
    assert f"{state['epoch']} epoch(s) done" in out
    assert run.scores() == before
    assert run.has_final_weights()


def test_an_engine_does_not_overwrite_checkpoints_it_cannot_read(tiny_manager, small_model, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pth.tar-1").write_bytes(b"torn")
    model = small_model()
    engine = ImagePTLEngine(
        tiny_manager(), model, torch.optim.SGD(model.parameters(), lr=0.1), SoftmaxObjective(), use_gpu=False
    )
    with pytest.raises(CheckpointError, match=r"holds model.pth.tar-1, and none can be gone on from"):
        engine.run(save_dir=str(tmp_path), max_epoch=1, resume="auto")
    assert (tmp_path / "model" / "model.pth.tar-1").read_bytes() == b"torn"


def test_a_run_from_a_checkpoint_elsewhere_moves_earlier_results_aside(finished, tmp_path):
    folder, settings = finished
    shutil.copytree(folder / "model", tmp_path / "elsewhere")
    results = (folder / "results.json").read_bytes()
    resumed = {"model.resume": str(tmp_path / "elsewhere" / "model.pth.tar-1")}
    Run.of("quickstart", **settings, **resumed).execute()
    assert (folder / "earlier-1" / "results.json").read_bytes() == results
    assert (folder / "earlier-1" / "model" / "model-best.pth.tar").is_file()
    assert (folder / "results.json").is_file()


def test_a_folder_in_use_is_left_alone(finished, monkeypatch):
    folder, settings = finished
    before = contents(folder)
    held = (folder / ".lock").absolute()
    monkeypatch.setitem(lock._held, held, -1)  # another thread's
    for resume in (False, True):
        with pytest.raises(InUseError, match=rf"log is in use by process {os.getpid()} on .*, since .*save_dir"):
            Run.of("quickstart", **settings).execute(resume=resume)
    with pytest.raises(InUseError):
        Run.of("quickstart", **settings, **{"test.evaluate": True, "model.resume": "auto"}).execute()
    with pytest.raises(InUseError):
        Sweep("quickstart", seeds=[1], **settings).execute()
    assert contents(folder) == before
