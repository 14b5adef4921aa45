"""Sweeps over values and seeds, and their table."""

import csv
import json
import math
import re
import shlex
from pathlib import Path

import pytest
from yacs.config import CfgNode

from torchreid_ptl.cli.arguments import SWITCHES
from torchreid_ptl.cli.sweep import main, read, sweep_of
from torchreid_ptl.cli.train import main as run_once
from torchreid_ptl.config.loading import ConfigError, get, to_dict
from torchreid_ptl.runs import Run, Sweep
from torchreid_ptl.runs.spread import NOTE, Combination, Outcome, rows, spread, table_csv, table_markdown
from torchreid_ptl.runs.sweep import RESERVED

ROOT = Path(__file__).parents[2]
TINY = "drawn_pedestrians_tiny"
SMALL = [
    "data.height", "64", "data.width", "32", "data.workers", "0", "train.batch_size", "4", "test.visrank", "False",
]  # fmt: skip
QUICK = ["--config-file", str(ROOT / "configs" / "quickstart.yaml"), "-s", TINY, "-t", TINY]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Single runs are tested with theirs."""
    monkeypatch.setattr("torchreid_ptl.report.files._draw_pictures", lambda *_: [])


@pytest.fixture
def asked(tmp_path, tiny_root):
    """Arguments of a small sweep: switches, then keys."""

    def build(*switches, keys=()):
        return [*QUICK, "--root", str(tiny_root), *switches, *SMALL, "data.save_dir", str(tmp_path / "log"), *keys]

    return build


@pytest.fixture
def pretended(monkeypatch):
    """Replaces runs by a record of them: mAP is the learning rate plus a thousandth of the seed."""
    done = []

    def pretend(run, resume=False, **_):
        config = run.config.clone()
        config.defrost()
        config.model.resume = "auto" if resume and run.trains else ""
        done.append(config)
        if config.train.seed == 13:
            raise ValueError("an unlucky\nnumber | seen")
        folder = Path(config.data.save_dir)
        folder.mkdir(parents=True, exist_ok=True)
        scores = {"mAP": config.train.lr + config.train.seed / 1000, "cmc": {"1": 0.5}}
        results = {"targets": dict.fromkeys(config.data.targets, scores), "config": to_dict(config)}
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "config.yaml").write_text(config.dump())

    monkeypatch.setattr(Run, "execute", pretend)
    return done


def table(folder):
    with open(folder / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_arithmetic():
    found = spread([0.2, 0.4, 0.9])
    assert found["mean"] == pytest.approx(0.5)
    assert found["std"] == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert (found["min"], found["max"]) == (0.2, 0.9)
    assert spread([0.3]) == {"mean": 0.3, "std": None, "min": 0.3, "max": 0.3}
    assert set(spread([]).values()) == {None}


def planned(targets, seeds):
    """Runs of as many seeds."""
    return [Run(CfgNode({"data": {"targets": targets}})) for _ in range(seeds)]


def test_the_table():
    lucky = Combination({"train.lr": "0.1"}, planned(["a", "b"], 2))
    lucky.outcomes += [Outcome(1, {"a": (0.5, 0.6), "b": (0.1, 0.2)}), Outcome(2, {"a": (0.7, 0.6), "b": (0.1, 0.4)})]
    unlucky = Combination(
        {"train.lr": "0.2"}, planned(["a"], 3), [Outcome(1, {"a": (0.25, 1.0)}), Outcome(2, error="E: x | y\nz")]
    )
    first, second, third = rows([lucky, unlucky])
    assert (first["target"], first["runs"], first["mAP_mean"]) == ("a", 2, pytest.approx(0.6))
    assert second["rank1_std"] == pytest.approx(math.sqrt(0.02))
    assert (third["runs"], third["planned"], third["mAP_std"], third["failed"]) == (1, 3, None, "seed 2: E: x | y\nz")
    lines = table_markdown([lucky, unlucky]).splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[2] == ["0.1", "a"] + [
        "2 of 2",
        *["60.00", "14.14", "50.00", "70.00", "60.00", "0.00", "60.00", "60.00"],
        "",
    ]
    figures = ["25.00", "", "25.00", "25.00", "100.00", "", "100.00", "100.00"]
    assert cells[4] == ["0.2", "a", "1 of 3", *figures, r"seed 2: E: x \| y z"]
    assert lines[-1] == NOTE
    assert list(csv.DictReader(table_csv([lucky, unlucky]).splitlines()))[0]["rank1_max"] == "0.6"


def test_nothing_is_swallowed():
    parsed = read(
        ["--values", "train.lr", "0.1", "0.2", "train.max_epoch", "2", "--values", "train.stepsize", "[1, 2]", "[3]"]
        + ["--seeds", "1", "2", "-s", "market1501", "--resume", "-t", "grid", "viper", "data.height", "64"]
    )
    assert parsed.values == [["train.lr", "0.1", "0.2"], ["train.stepsize", "[1, 2]", "[3]"]]
    assert (parsed.seeds, parsed.sources, parsed.targets) == (["1", "2"], ["market1501"], ["grid", "viper"])
    assert parsed.resume
    assert parsed.opts == ["train.max_epoch", "2", "data.height", "64"]
    parsed = read(["--values", "train.lr", "0.1", "--seeds", "1", "2", "train.max_epoch", "2"])
    assert (parsed.seeds, parsed.opts) == (["1", "2"], ["train.max_epoch", "2"])


def plan(parsed):
    return sweep_of(parsed).runs


def test_the_grid(tmp_path):
    swept = ["--values", "train.gamma", "1", "0.50", "1e-5", "--values", "train.stepsize", "[1, 2]", "[3]"]
    runs = plan(read([*swept, "--seeds", "7", "8", "data.save_dir", str(tmp_path), "train.max_epoch", "3"]))
    assert len(runs) == 12
    assert [str(run.folder.relative_to(tmp_path)) for run in runs][:3] == [
        "train.gamma=1,train.stepsize=[1,2]/seed-7",
        "train.gamma=1,train.stepsize=[1,2]/seed-8",
        "train.gamma=1,train.stepsize=[3]/seed-7",
    ]
    last = runs[-1]
    assert (last.config.train.gamma, last.config.train.stepsize, last.config.train.seed) == (1e-5, [3], 8)
    assert {run.config.train.max_epoch for run in runs} == {3}
    assert last.folder.relative_to(tmp_path) == Path("train.gamma=1e-05,train.stepsize=[3]", "seed-8")


def test_texts_that_are_no_file_names(tmp_path):
    long = "/".join(["x" * 100] * 3)
    runs = plan(read(["--values", "model.load_weights", "a/b c", "a-b-c", long, "", "data.save_dir", str(tmp_path)]))
    names = [run.folder.parent.name for run in runs]
    assert re.fullmatch(r"model\.load_weights=a-b-c~[0-9a-f]{8}", names[0])
    assert names[1] == "model.load_weights=a-b-c"
    assert len(names[2]) < 200  # a file system takes names of 255 bytes
    assert names[3] == "model.load_weights="
    assert all(run.folder.parent.parent == tmp_path for run in runs)
    assert [run.config.model.load_weights for run in runs] == ["a/b c", "a-b-c", long, ""]


@pytest.mark.slow
def test_a_sweep_is_its_single_runs(asked, tmp_path, tiny_root, capsys):
    assert main(asked("--values", "train.lr", "0.004", "1e-3", "--seeds", "1", "2", keys=["train.max_epoch", "1"])) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^Run (\d) of 4 \(0:00:\d\d so far\): (.*)$", out, flags=re.MULTILINE)[2:] == [
        ("3", "train.lr=0.001, seed 1"),
        ("4", "train.lr=0.001, seed 2"),
    ]
    folder = tmp_path / "log"
    single = [*QUICK, "--root", str(tiny_root), *SMALL, "train.max_epoch", "1", "train.lr", "0.004", "train.seed", "2"]
    assert run_once([*single, "data.save_dir", str(tmp_path / "one")]) == 0
    expected = json.loads((tmp_path / "one" / "results.json").read_text())["targets"]
    assert json.loads((folder / "train.lr=0.004" / "seed-2" / "results.json").read_text())["targets"] == expected
    first, second = table(folder)
    assert (first["train.lr"], second["train.lr"], first["runs"], first["failed"]) == ("0.004", "0.001", "2", "")
    seeds = [json.loads((folder / "train.lr=0.004" / f"seed-{n}" / "results.json").read_text()) for n in (1, 2)]
    scores = [results["targets"][TINY]["mAP"] for results in seeds]
    assert float(first["mAP_mean"]) == pytest.approx(sum(scores) / 2)
    assert float(first["mAP_std"]) == pytest.approx(abs(scores[0] - scores[1]) / math.sqrt(2))
    assert (folder / "sweep.md").read_text() in out
    assert NOTE in out


def test_a_failing_run_is_told_and_the_others_go_on(asked, tmp_path, capsys):
    values = ["train.new_layers", "[nothing]", "[classifier]"]
    arguments = asked("--values", *values, keys=["train.max_epoch", "1", "train.staged_lr", "True"])
    assert main(arguments) == 1
    assert "1 run(s) of the sweep failed" in capsys.readouterr().err
    bad, good = table(tmp_path / "log")
    assert (bad["runs"], bad["mAP_mean"], good["runs"], good["failed"]) == ("0", "", "1", "")
    assert bad["failed"].startswith("seed 1: ConfigError: train.new_layers names")
    assert "ConfigError" in (tmp_path / "log" / "sweep.md").read_text()


def test_an_interrupted_sweep_goes_on(asked, tmp_path, capsys, monkeypatch):
    arguments = asked("--seeds", "1", "2", "--resume", keys=["train.max_epoch", "2"])
    seen, real = [], Run.execute

    def stopped(run, **options):
        seen.append(run.config.train.seed)
        if run.config.train.seed == 2 and len(seen) == 2:
            real(run, **options)  # what a run stopped in its second epoch writes
            folder = run.folder
            for name in ("results.json", "model/model.pth.tar-2", "model/model-best.pth.tar"):
                (folder / name).unlink()
            raise KeyboardInterrupt
        return real(run, **options)

    monkeypatch.setattr(Run, "execute", stopped)
    assert main(arguments) == 130
    assert [row["runs"] for row in table(tmp_path / "log")] == ["1"]
    assert "To go on: " in capsys.readouterr().err
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert seen == [1, 2, 2]
    assert f"Finished earlier, not repeated: {tmp_path / 'log' / 'seed-1'}" in out
    assert "model.pth.tar-1: 1 epoch(s) done" in out
    (row,) = table(tmp_path / "log")
    assert row["runs"] == "2"


def test_what_counts_as_finished(asked, tmp_path, pretended, capsys):
    arguments = asked("--values", "train.lr", "0.1", "0.2", "--seeds", "1")
    assert main(arguments) == 0
    assert {config.model.resume for config in pretended} == {""}
    resumed = asked("--values", "train.lr", "0.1", "0.2", "--seeds", "1", "2", "--resume")
    assert main([*resumed, "data.workers", "1", "eval.memory_mb", "64"]) == 0
    assert [(c.train.lr, c.train.seed, c.model.resume) for c in pretended[2:]] == [(0.1, 2, "auto"), (0.2, 2, "auto")]
    assert [row["runs"] for row in table(tmp_path / "log")] == ["2", "2"]
    assert main([*resumed, "test.dist_metric", "cosine"]) == 0
    assert len(pretended) == 8
    results = tmp_path / "log" / "train.lr=0.1" / "seed-1"
    assert (results / "earlier-1" / "results.json").is_file()
    (results / "results.json").write_text('{"targets"')
    assert main([*resumed, "test.dist_metric", "cosine"]) == 0
    assert len(pretended) == 9
    assert "Moved results with other settings" in capsys.readouterr().out


def test_runs_with_another_training_are_not_resumed(asked, tmp_path, pretended, capsys):
    keys = ["train.max_epoch", "3", "train.lr_scheduler", "single_step"]
    assert main(asked("--seeds", "1", keys=keys)) == 0
    for other in (["train.gamma", "0.5"], ["model.load_weights", "other.pth"], ["train.max_epoch", "2"]):
        assert main(asked("--seeds", "1", "2", "--resume", keys=[*keys, *other])) == 1
        err = capsys.readouterr().err
        assert re.search(rf"^ConfigError: --resume: .*seed-1 holds a run with other settings: {other[0]} was", err)
    assert len(pretended) == 1
    assert [row["runs"] for row in table(tmp_path / "log")] == ["1"]
    assert main(asked("--seeds", "1", "--resume", keys=[*keys, "train.max_epoch", "4"])) == 0
    assert pretended[-1].train.max_epoch == 4


def test_tests_alone_are_repeated_and_not_resumed(asked, pretended):
    assert main(asked("--seeds", "1", "--resume", keys=["test.evaluate", "True"])) == 0
    assert pretended[0].model.resume == ""


def test_a_new_sweep_keeps_the_table_of_the_old_one(asked, tmp_path, pretended):
    arguments = asked("--seeds", "1", "13")
    assert main(arguments) == 1
    first = (tmp_path / "log" / "sweep.md").read_text()
    assert r"seed 13: ValueError: an unlucky number \| seen" in first
    assert main(arguments) == 1
    assert len(pretended) == 4
    assert (tmp_path / "log" / "earlier-1" / "sweep.md").read_text() == first
    assert (tmp_path / "log" / "earlier-1" / "sweep.csv").is_file()


@pytest.mark.parametrize(
    ("switches", "keys", "message"),
    [
        ([], [], "A sweep needs something to vary"),
        (["--values", "train.lrr", "1", "2"], [], "Unknown key 'train.lrr' .* did you mean 'train.lr'"),
        (["--values", "train.lr", "1"], ["train.max_epochs", "2"], "Unknown key 'train.max_epochs'"),
        (["--values", "train.lr", "0.1", "much"], [], "train.lr in the command line is 'much'.*expected a number"),
        (
            ["--values", "train.lr", "0.1", "-1"],
            [],
            "^ConfigError: train.lr=-1, seed 1: train.lr is -1.0; allowed: above 0",
        ),
        (["--values", "loss.name", "softmax", "sofmax"], [], "loss.name=sofmax, seed 1: .* did you mean 'softmax'"),
        (["--values", "train.lr", "0.5", "0.50"], [], "--values train.lr has '0.5' twice"),
        (["--values", "train.lr", "1", "--values", "train.lr", "2"], [], "--values has 'train.lr' twice"),
        (["--values", "train.lr"], [], "--values train.lr has no value"),
        (["--seeds", "1", "2", "1"], [], "--seeds has '1' twice"),
        (["--seeds", "one"], [], "--seeds takes integers; got 'one'"),
        (["--seeds", "1", "1.5", "1e3"], [], "--seeds takes integers; got '1.5', '1e3'"),
        (["--seeds", "1", "-1"], [], "seed -1: train.seed is -1; allowed: from 0 to 4294967295"),
        (["--seeds", "1", "4294967296"], [], "seed 4294967296: train.seed is 4294967296; allowed"),
        (["--seeds", "1", "9" * 30], [], "--seeds takes integers"),
        (["--values", "train", "1"], [], "Unknown key 'train' in .*: it is a section with the keys"),
        (["--values", "train.lr", "0.1", "nan"], [], "train.lr in .* is 'nan'"),
        (["--values", "train.lr", "0.1", "1e999"], [], "train.lr is inf; allowed: above 0"),
        (["--values", "train.max_epoch", "1", "0x" + "f" * 6000], [], "train.max_epoch is .*; allowed: from 0"),
        (["--values", "eval.memory_mb", "64", "1000000000000"], [], "eval.memory_mb is 1000000000000; allowed"),
        (["--values", "model.load_weights", "", "none.pth"], [], "model.load_weights names none.pth, which does not"),
        (["--seeds", *map(str, range(10_001))], [], "The sweep has 10001 runs; at most 10000"),
        (["--seeds", "1"], ["train.seed", "2"], "train.seed is given as KEY VALUE and as --seeds 1"),
        (["--values", "train.seed", "1", "2"], [], "--values train.seed: --seeds repeats"),
        (["--values", "data.save_dir", "a", "b"], [], "--values data.save_dir: every run has a folder of its own"),
        (["--seeds", "1"], ["model.resume", "auto"], "model.resume is 'auto'; a sweep is continued with --resume"),
        (["--values", "train.lr", "1", "2"], ["train.lr", "3"], "train.lr is given as KEY VALUE and as --values"),
        (["--values", "data.sources", f"['{TINY}']"], [], "data.sources is given as --sources and as --values"),
        (["--seeds", "1"], ["test.ranks", "[5]"], "the table of a sweep shows rank-1: add 1"),
        (["--values", "data.load_train_targets", "True"], [], "loads training sets of targets that are not sources"),
    ],
)
def test_mistakes_are_told_before_anything_runs(asked, tmp_path, pretended, capsys, switches, keys, message):
    assert main(asked(*switches, keys=keys)) == 1
    captured = capsys.readouterr()
    assert re.search(message, captured.err), captured.err
    assert captured.err.count("\n") == 1
    assert pretended == []
    assert not (tmp_path / "log").exists()


def test_folders_are_looked_at_before_anything_runs(tmp_path, pretended, capsys):
    sources = ["--values", "data.sources", f"['{TINY}']", "['market1501']"]
    assert main([*sources, "-t", TINY, "--root", str(tmp_path), "data.save_dir", str(tmp_path / "log")]) == 1
    assert "The folder of data set 'market1501' is missing" in capsys.readouterr().err
    assert pretended == []


def test_both_entry_points(capsys):
    from torchreid_ptl.cli.main import main as package

    assert "torchreid_ptl.cli.sweep import main" in (ROOT / "tools" / "sweep.py").read_text()
    assert package(["sweep", "--values", "train.lr"]) == 1
    assert "--values train.lr has no value" in capsys.readouterr().err


def test_a_sweep_from_python(tmp_path, pretended, tiny_root):
    data = {"root": str(tiny_root), "sources": [TINY], "targets": [TINY], "save_dir": str(tmp_path)}
    sweep = Sweep({"model": {"name": "osnet_x0_25"}}, {"train.lr": [0.5, 0.25]}, seeds=[1, 13], data=data)
    assert sweep.execute() == 2
    assert [(config.train.lr, config.train.seed) for config in pretended] == [
        (0.5, 1),
        (0.5, 13),
        (0.25, 1),
        (0.25, 13),
    ]
    assert [row["failed"][:8] for row in table(tmp_path)] == ["seed 13:"] * 2


@pytest.mark.parametrize(
    ("values", "seeds", "message"),
    [
        ({"train.lr": 0.1}, [1], "values of train.lr are 0.1; give a list of them"),
        ({"train.lr": "0.1"}, [1], "values of train.lr are '0.1'; give a list of them"),
        ({"train.lr": [0.1]}, 5, "seeds are 5; give a list of them"),
        ({}, [1.5], "--seeds takes integers; got 1.5"),
        ({}, [True], "--seeds takes integers; got True"),
        ({"train.lr": [0.1, float("nan")]}, [1], "train.lr is nan; allowed: above 0"),
        ({"train.lr": [0.1, None]}, [1], "train.lr in the command line is None"),
        ({"train.max_epoch": [1, True]}, [1], "train.max_epoch in the command line is True"),
    ],
)
def test_mistakes_from_python(values, seeds, message):
    with pytest.raises(ConfigError, match=message):
        Sweep(None, values, seeds=seeds)


def test_a_score_that_is_not_finite_fails_its_run_alone(asked, tmp_path, pretended):
    real = Run.execute

    def pretend(run, **options):
        real(run, **options)
        if run.config.train.seed == 1:
            path = run.folder / "results.json"
            path.write_text(re.sub(r'"mAP": [0-9.]+', '"mAP": null', path.read_text()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "execute", pretend)
        assert main(asked("--seeds", "1", "2")) == 1
    (row,) = table(tmp_path / "log")
    assert row["runs"] == "1"
    assert "seed 1: ValueError: mAP and rank-1 on drawn_pedestrians_tiny are (None, 0.5)" in row["failed"]


def test_the_commands_of_the_guide_are_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "sweeps.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]
    counts = [len(plan(read(shlex.split(re.split(r"tools/sweep\.py|torchreid_ptl sweep", line)[1])))) for line in lines]
    assert counts == [6, 12, 5, 15, 4]


def test_every_reserved_key_exists():
    config = plan(read(["--seeds", "1"]))[0].config
    for key in (*RESERVED, *SWITCHES.values()):
        get(config, key)
