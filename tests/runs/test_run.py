"""A run from Python: one folder, one configuration, finished or not."""

import json
import subprocess
import sys

import pytest
import torch

import torchreid_ptl
from torchreid_ptl.config.loading import ConfigError
from torchreid_ptl.engines import ImagePTLEngine
from torchreid_ptl.runs import Chain, Run, Sweep
from torchreid_ptl.runtime.checkpoint import load_checkpoint, save_checkpoint

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
