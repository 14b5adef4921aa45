"""Continuing a run as if it had never stopped."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from torchreid_ptl.config import differences
from torchreid_ptl.engines import ImagePTLEngine, SoftmaxObjective, resume
from torchreid_ptl.engines.resume import restore
from torchreid_ptl.runtime.checkpoint import CheckpointError, Size, load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
EPOCHS = 12


def engine_of(manager, model, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.5)
    return ImagePTLEngine(manager, model, optimizer, SoftmaxObjective(), scheduler, use_gpu=False, **options)


@pytest.mark.parametrize("sampler", [pytest.param("RandomSampler", marks=pytest.mark.slow), "RandomIdentitySampler"])
def test_a_resumed_run_equals_one_never_stopped(tiny_manager, small_model, tmp_path, sampler):
    options = {
        "transforms": ["random_flip", "random_crop", "random_patch", "random_erase"],
        "train_sampler": sampler,
        "num_instances": 2,
    }

    def run(folder, epochs, resume=""):
        torch.manual_seed(11)
        random.seed(11)
        model = small_model()
        engine = engine_of(tiny_manager(**options), model)
        engine.run(save_dir=str(folder), max_epoch=epochs, eval_freq=1, resume=resume)
        return model.state_dict(), engine

    whole, engine = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    resumed, other = run(tmp_path / "parts", 4, resume="auto")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert other.history == engine.history
    assert other.best_score == engine.best_score


def command(folder, root):
    return [
        sys.executable, "-W", "ignore", "tools/main.py", "--config-file", "configs/quickstart.yaml",
        "--root", str(root), "-s", "drawn_pedestrians_tiny", "-t", "drawn_pedestrians_tiny",
        "data.save_dir", str(folder), "data.height", "64", "data.width", "32", "data.workers", "1",
        "train.batch_size", "4", "train.max_epoch", str(EPOCHS), "test.visrank", "False", "model.resume", "auto",
    ]  # fmt: skip


def start(folder, root):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(folder, root), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def kill(process):
    """Kills a run at once, then what it leaves: a worker may wait for ever for a lock that died with the run."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()


@pytest.mark.slow
def test_killed_at_three_random_moments(tiny_root, tmp_path):
    finished = start(tmp_path / "whole", tiny_root)
    started = time.monotonic()
    out, _ = finished.communicate(timeout=300)
    length = time.monotonic() - started
    assert finished.returncode == 0, out
    moments = random.Random(time.time_ns())
    for _ in range(3):
        process = start(tmp_path / "killed", tiny_root)
        for line in process.stdout:
            if line.startswith("Model "):  # training begins
                break
        time.sleep(length * moments.uniform(0.0, 0.2))
        assert process.poll() is None, "the run was over before it could be killed"
        kill(process)
    last = start(tmp_path / "killed", tiny_root)
    out, _ = last.communicate(timeout=300)
    assert last.returncode == 0, out
    whole, resumed = (
        load_checkpoint(tmp_path / name / "model" / f"model.pth.tar-{EPOCHS}") for name in ("whole", "killed")
    )
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert whole["history"] == resumed["history"]


@pytest.fixture
def stopped(tiny_manager, small_model, tmp_path):
    """A run of two epochs and a fresh engine to continue it with."""
    config = {"model": {"name": "osnet_x0_25_ptl"}, "train": {"optim": "adam", "max_epoch": 3}}
    engine_of(tiny_manager(), small_model(), config=config).run(save_dir=str(tmp_path), max_epoch=2)

    def again(network=None, options=None, **changes):
        return engine_of(tiny_manager(), network or small_model(), config={**config, **changes}, **(options or {}))

    return tmp_path, again


def test_a_torn_newest_checkpoint_is_passed_over(stopped, capsys):
    folder, again = stopped
    newest = folder / "model" / "model.pth.tar-2"
    newest.write_bytes(newest.read_bytes()[:5000])
    again().run(save_dir=str(folder), max_epoch=3, resume="auto")
    out = capsys.readouterr().out
    assert f"Ignoring {newest}" in out
    assert "model.pth.tar-1: 1 epoch(s) done" in out


def test_nothing_to_resume_starts_from_the_beginning(tiny_manager, small_model, tmp_path, capsys):
    engine_of(tiny_manager(), small_model()).run(save_dir=str(tmp_path), max_epoch=1, resume="auto")
    assert "Nothing to resume" in capsys.readouterr().out
    assert (tmp_path / "model" / "model.pth.tar-1").exists()


def test_a_run_that_is_done_is_only_tested(stopped, capsys):
    folder, again = stopped
    again().run(save_dir=str(folder), max_epoch=2, resume="auto")
    out = capsys.readouterr().out
    assert "Testing on" in out
    assert "epoch 3" not in out


def test_a_test_that_was_due_is_made_up_for(tiny_manager, small_model, tmp_path):
    """A run that stopped between the last checkpoint and the test of that epoch."""
    torch.manual_seed(4)
    whole = engine_of(tiny_manager(), small_model())
    whole.run(save_dir=str(tmp_path / "whole"), max_epoch=2, eval_freq=1)

    torch.manual_seed(4)
    stopping = engine_of(tiny_manager(), small_model())
    stopping.test = lambda **_: (_ for _ in ()).throw(OSError("a gallery image is gone"))
    with pytest.raises(OSError, match="gone"):
        stopping.run(save_dir=str(tmp_path / "parts"), max_epoch=2, eval_freq=1)
    assert (tmp_path / "parts" / "model" / "model.pth.tar-1").exists()

    again = engine_of(tiny_manager(), small_model())
    again.run(save_dir=str(tmp_path / "parts"), max_epoch=2, eval_freq=1, resume="auto")
    assert again.history == whole.history
    assert again.best_score == whole.best_score


def test_other_settings(stopped):
    folder, again = stopped
    with pytest.raises(CheckpointError, match="other settings: train.optim was 'adam' and is 'sgd'. Continue with"):
        again(train={"optim": "sgd", "max_epoch": 3}).run(save_dir=str(folder), max_epoch=3, resume="auto")
    with pytest.raises(CheckpointError, match="model.name was 'osnet_x0_25_ptl' and is 'resnet18_ptl'"):
        again(model={"name": "resnet18_ptl"}).run(save_dir=str(folder), max_epoch=3, resume="auto")


@pytest.mark.slow
def test_a_run_with_a_stepped_schedule_can_be_made_longer(stopped):
    folder, again = stopped
    config = {
        "model": {"name": "osnet_x0_25_ptl"},
        "train": {"optim": "adam", "max_epoch": 3, "lr_scheduler": "multi_step"},
    }
    again(**config).run(save_dir=str(folder), max_epoch=3)
    longer = {**config, "train": {**config["train"], "max_epoch": 4}}
    with pytest.raises(CheckpointError, match="train.max_epoch was 3 and is 4"):
        again(**longer).run(save_dir=str(folder), max_epoch=4, resume="auto")
    again(options={"differences": differences}, **longer).run(save_dir=str(folder), max_epoch=4, resume="auto")
    assert (folder / "model" / "model.pth.tar-4").is_file()


@pytest.mark.slow
def test_settings_that_training_does_not_see_may_change(stopped):
    folder, again = stopped
    config = {"data": {"save_dir": "here", "workers": 1}, "train": {"optim": "adam", "max_epoch": 3}}
    again(**config).run(save_dir=str(folder), max_epoch=2)
    other = {**config, "data": {"save_dir": "elsewhere", "workers": 7}}
    with pytest.raises(
        CheckpointError, match="data.save_dir was 'here' and is 'elsewhere'; data.workers was 1 and is 7"
    ):
        again(**other).run(save_dir=str(folder), max_epoch=3, resume="auto")
    again(options={"differences": differences}, **other).run(save_dir=str(folder), max_epoch=3, resume="auto")
    assert (folder / "model" / "model.pth.tar-3").is_file()


def test_another_model(stopped, small_model):
    folder, again = stopped
    with pytest.raises(CheckpointError, match="belongs to another model or optimiser"):
        again(small_model(num_classes=7)).run(save_dir=str(folder), max_epoch=3, resume="auto")


def test_weights_alone_are_no_run(stopped, small_model):
    folder, again = stopped
    save_checkpoint(small_model().state_dict(), folder / "weights.pth")
    with pytest.raises(CheckpointError, match="holds weights, not a run. Use load_weights"):
        again().run(save_dir=str(folder), max_epoch=3, resume=str(folder / "weights.pth"))


def test_a_torn_checkpoint_by_name_is_an_error(stopped):
    folder, again = stopped
    path = folder / "model" / "model.pth.tar-2"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        again().run(save_dir=str(folder), max_epoch=3, resume=str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.02}, r"optimizer\.group0\.lr was 0\.01 and is 0\.02"),
        ({"weight_decay": 0.1}, r"optimizer\.group0\.weight_decay was 0 and is 0\.1"),
        ({"step_size": 3}, r"scheduler\.step_size was 2 and is 3"),
        ({"label_smooth": False}, r"objective\.smoothing was 0\.1 and is 0\.0"),
        ({"precision": "bfloat16"}, "precision was 'float32' and is 'bfloat16'"),
        ({"batch_size": 8}, "batch_size was 4 and is 8"),
    ],
)
def test_a_run_from_python_goes_on_with_its_own_settings(tiny_manager, small_model, tmp_path, change, message):
    def engine(lr=0.01, weight_decay=0, step_size=2, label_smooth=True, precision="float32", batch_size=4):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=weight_decay)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size)
        manager = tiny_manager(batch_size_train=batch_size)
        objective = SoftmaxObjective(label_smooth)
        return ImagePTLEngine(manager, model, optimizer, objective, scheduler, use_gpu=False, precision=precision)

    first = engine()
    first.save_dir = tmp_path
    for epoch in range(3):
        first.update_lr()
        first.save_model(epoch, 0.0, str(tmp_path))
    state = load_checkpoint(tmp_path / "model" / "model.pth.tar-3")
    assert state["config"]["optimizer"]["class"] == "SGD"
    assert state["config"]["data"]["height"] == 64
    assert restore(engine(), tmp_path / "model", "auto") == 3
    with pytest.raises(CheckpointError, match=message):
        restore(engine(**change), tmp_path / "model", "auto")


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("Adam", {}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {}),
        ("RMSprop", {}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
    ],
    ids=str,
)
def test_the_room_for_checkpoints_is_what_they_take(
    tiny_manager, small_model, tmp_path, monkeypatch, optimizer, options
):
    asked = []
    monkeypatch.setattr(resume, "check_room", lambda folder, state, copies, **_: asked.append((state, copies)))
    model = small_model()
    optimizer = getattr(torch.optim, optimizer)(model.parameters(), lr=0.001, **options)
    engine = ImagePTLEngine(tiny_manager(), model, optimizer, SoftmaxObjective(), use_gpu=False)
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    ((state, copies),) = asked
    assert copies == 2
    size = Size()
    torch.save(state, size)
    written = (tmp_path / "model" / "model.pth.tar-1").stat().st_size
    assert written * 0.98 < size.total < written * 1.02


def test_the_peak_of_a_run_has_four_files(tiny_manager, small_model, tmp_path, monkeypatch):
    asked, seen, save = [], [], resume.save_checkpoint
    monkeypatch.setattr(resume, "check_room", lambda folder, state, copies, **_: asked.append(copies))

    def counted(state, path):
        seen.append(1 + len({file.stat().st_ino for file in path.parent.glob("*")}))  # with the one being written
        save(state, path)

    monkeypatch.setattr(resume, "save_checkpoint", counted)
    engine = engine_of(tiny_manager(), small_model())
    engine.run(save_dir=str(tmp_path), max_epoch=5, eval_freq=1)
    assert max(seen) <= 4 == asked[0]


def test_events_on_a_full_disk_are_named(tiny_manager, small_model, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    engine = engine_of(tiny_manager(), small_model())
    engine.writer = SimpleNamespace(add_scalar=full, close=lambda: None)
    with pytest.raises(OSError, match=r"No space left on device.*events.out.tfevents"):
        engine.run(save_dir=str(tmp_path), max_epoch=1)


def test_a_run_of_torchreid_goes_on_and_keeps_its_checkpoints(tiny_manager, small_model, tmp_path, capsys):
    """As torchreid.utils.save_checkpoint leaves them."""
    first = engine_of(tiny_manager(), small_model())
    folder = tmp_path / "model"
    for epoch in (1, 2, 3):
        state = {"state_dict": first.model.state_dict(), "epoch": epoch, "rank1": 0.5}
        state |= {"optimizer": first.optimizer.state_dict(), "scheduler": first.scheduler.state_dict()}
        folder.mkdir(exist_ok=True)
        torch.save(state, folder / f"model.pth.tar-{epoch}")
    torch.save(state, folder / "model-best.pth.tar")
    best = (folder / "model-best.pth.tar").read_bytes()
    engine_of(tiny_manager(), small_model(), keep_last=1).run(save_dir=str(tmp_path), max_epoch=5, resume="auto")
    assert "model.pth.tar-3: 3 epoch(s) done" in capsys.readouterr().out
    names = {"model-best.pth.tar", "earlier-1", *(f"model.pth.tar-{epoch}" for epoch in (1, 2, 3, 5))}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "earlier-1" / "model-best.pth.tar").read_bytes() == best
