"""Configurations found by path and by name, alone and together, and the folder that their names give a run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import configure, parse

from torchreid_ptl.config.loading import load_config
from torchreid_ptl.config.shipped import configurations, find_configuration

ROOT = Path(__file__).parents[2]
NAMES = [str(path.relative_to(ROOT / "configs"))[: -len(".yaml")] for path in (ROOT / "configs").rglob("*.yaml")]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working folder with two configurations in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "exp.yaml").write_text("train: {lr: 0.1, max_epoch: 3}\n")
    (tmp_path / "more.v2.yml").write_text("train: {lr: 0.2}\n")
    return tmp_path


def test_later_files_win(own):
    train = load_config(["my/exp.yaml", "more.v2.yml"]).train
    assert (train.lr, train.max_epoch) == (0.2, 3)
    train = load_config(["more.v2.yml", "my/exp.yaml"], ["train.max_epoch", "5"]).train
    assert (train.lr, train.max_epoch) == (0.1, 5)


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ([], "log"),
        (["my/exp.yaml"], "log/exp"),
        (["my/exp"], "log/exp"),
        (["more.v2.yml"], "log/more.v2"),
        (["quickstart"], "log/quickstart"),
        (["paper/msmt17_std_lambda_0.3"], "log/paper/msmt17_std_lambda_0.3"),
        (["compat/market1501", "compat/methods/rbcl"], "log/compat/market1501/rbcl"),
        (["compat/market1501", "my/exp.yaml", "more.v2.yml"], "log/compat/market1501/exp/more.v2"),
        (["my/exp.yaml", "compat/methods/rbcl"], "log/exp/rbcl"),
        ([ROOT / "configs" / "ptl_mgn.yaml"], "log/ptl_mgn"),
    ],
)
def test_the_folder_of_a_run_is_named_after_its_files(own, files, folder):
    assert load_config(files).data.save_dir == folder


def test_what_sets_the_folder_wins(own):
    (own / "own.yaml").write_text("data: {save_dir: there}\n")
    (own / "top.yaml").write_text("_BASE_: own.yaml\n")
    assert load_config(["own.yaml", "my/exp.yaml"]).data.save_dir == "there"
    assert load_config("top.yaml").data.save_dir == "there"
    assert load_config("quickstart", ["data.save_dir", "here"]).data.save_dir == "here"


def test_a_file_comes_before_a_shipped_one_of_its_name(own):
    (own / "quickstart").mkdir()
    assert load_config("quickstart").model.name == "osnet_x0_25_ptl"
    (own / "quickstart.yaml").write_text("model: {name: resnet18}\n")
    assert load_config("quickstart").model.name == "resnet18"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quikstart", "did you mean 'quickstart'"),
        ("market1501_mgn", "did you mean 'paper/market1501_mgn'"),
        ("configs/compat/methods/rbcl.yml", "did you mean 'compat/methods/rbcl'"),
        ("zzz", r"configs lists the shipped ones"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(own, name, hint):
    with pytest.raises(FileNotFoundError, match=f"No configuration {name}: .*{hint}"):
        load_config(name)


def test_the_list_of_names_leaves_out_what_others_build_upon():
    assert set(NAMES) - set(configurations()) == {name for name in NAMES if name.startswith("base/")}
    assert all(find_configuration(name).is_file() for name in configurations())


def _students(name):
    """Network and cells of each student that a shipped configuration distils, and its teacher."""
    stages = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text()).get("chain", [])
    for stage in [load_config(name)] if not stages else [stage for stage in stages if "std" in stage]:
        yield stage["model"]["name"], stage["ptl"]["cells"], stage["std"]["teacher"]


@pytest.mark.parametrize("name", [name for name in NAMES if "std" in name and "osnet" not in name])
def test_a_student_is_its_teacher_without_cells(name):
    """Its feature is the output of a 1x1 convolution too, so that it can be negative where the teacher's is."""
    found = list(_students(name))
    assert found
    assert all(model == teacher and not cells for model, cells, teacher in found)


def test_the_switch_takes_several_files_and_leaves_the_keys(own):
    config = configure(
        parse(["--config-file", "quickstart", "my/exp.yaml", "train.max_epoch", "7", "use_gpu", "False"])
    )
    assert (config.train.lr, config.train.max_epoch, config.data.save_dir) == (0.1, 7, "log/quickstart/exp")


def test_a_file_may_be_called_like_a_section(own):
    (own / "train.yaml").write_text("train: {lr: 0.5}\n")
    assert configure(parse(["--config-file", "quickstart", "train.yaml"])).train.lr == 0.5


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as a wheel installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_dir() and path.name in ("torchreid_ptl", "configs"):
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    subprocess.run([*pip, "install", "--no-deps", "-t", folder / "site", *folder.glob("*.whl")], check=True)
    return folder / "site"


@pytest.mark.slow
def test_an_installed_package_has_its_rooms_and_its_configurations(installed, tmp_path):
    code = """
import torchreid_ptl.cli.train
from torchreid_ptl.config.loading import load_config
from torchreid_ptl.config.shipped import SHIPPED, configurations
from torchreid_ptl.report.visual import Report, TargetReport, save_report
save_report("report.html", Report("a title", [TargetReport("a data set", {})]))
print(SHIPPED, len(configurations()), load_config(["compat/market1501", "compat/methods/rbcl"]).data.save_dir)
"""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = [str(installed / "torchreid_ptl" / "configs"), str(len(configurations())), "log/compat/market1501/rbcl"]
    assert done.stdout.split() == expected
    assert "a data set" in (tmp_path / "report.html").read_text()
