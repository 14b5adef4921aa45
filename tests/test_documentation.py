"""The documentation is executed, and names everything it should."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import configure, configure_chain, parse

import torchreid_ptl
from torchreid_ptl.backbones import splittable
from torchreid_ptl.cli.compatibility import read as read_compatibility
from torchreid_ptl.cli.evaluate import read as read_evaluation
from torchreid_ptl.config.loading import load_config
from torchreid_ptl.config.settings import SETTINGS, as_markdown
from torchreid_ptl.config.shipped import configurations
from torchreid_ptl.registration import ENGINES, LOSSES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


EVALUATION = [
    f"evaluation.{name}"
    for name in ("ranking", "rerank", "verification", "install", "normalized", "backfill", "compatibility")
] + [
    *(f"evaluation.{name}" for name in ("comparison", "compatibility_result", "descriptors")),
    "evaluation.version_matrix",
    "runtime.tables",
]


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_python_of_the_evaluation_guide_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "evaluation.md").read_text()
    try:
        exec("\n".join(blocks("python", text)), {})
    finally:
        torchreid_ptl.evaluation.uninstall()
    assert "(5, 10)" in capsys.readouterr().out


def test_the_commands_that_evaluate_are_understood():
    text = README + (ROOT / "docs" / "evaluation.md").read_text()
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    commands = [line.partition("tools/evaluate.py")[2] for line in lines if "tools/evaluate.py" in line]
    assert len(commands) == 6
    for command in commands:
        parsed = read_evaluation(shlex.split(command))
        load_config(None, parsed.opts)
        assert bool(parsed.weights) != bool(parsed.query)


def test_the_python_of_the_compatibility_guide_runs(capsys):
    text = (ROOT / "docs" / "compatibility.md").read_text()
    exec("\n".join(blocks("python", text)), {})
    out = capsys.readouterr().out
    assert "compatible: yes by mAP" in out
    assert "AC 100.00%" in out


def test_the_python_of_the_guide_to_parts_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "parts.md").read_text()
    exec("\n".join(blocks("python", text)), {})
    out = capsys.readouterr().out.splitlines()
    assert {"2 4", "(4,) 2"} <= set(out)


def test_the_commands_of_the_guide_to_parts_are_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = re.findall(r"tools/main\.py (.*)", (ROOT / "docs" / "parts.md").read_text())
    sources = [configure(parse(shlex.split(line))).data.sources for line in lines]
    assert sources == [["class30:market1501"], ["market1501"], ["holdout20:market1501"]]


def test_the_guide_of_pseudo_labels_runs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "pseudo_labels.md").read_text()
    exec("\n".join(blocks("python", text)), {})
    assert capsys.readouterr().out == "5 clusters, 0 outliers\n"
    (command,) = blocks("sh", text)
    arguments = shlex.split(command.replace("\\\n", " ").partition("tools/main.py")[2])
    assert configure(parse(arguments)).loss.name == "cluster"
    for key in SETTINGS:
        assert not key.startswith("loss.cluster.") or f"`{key}`" in text, key


def test_the_commands_that_compare_versions_are_understood():
    text = README + (ROOT / "docs" / "compatibility.md").read_text()
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    commands = [line.partition("tools/compatibility.py")[2] for line in lines if "tools/compatibility.py" in line]
    assert len(commands) == 4
    for command in commands:
        parsed = read_compatibility(shlex.split(command))
        load_config(None, parsed.opts)
        assert bool(parsed.version) != bool(parsed.features)
        assert len(parsed.version or parsed.features) == 2
        assert all(len(pair) >= 2 for pair in parsed.features)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path):
    code = "\n".join(blocks("python"))
    assert code.count("engine.run") == 3
    path = tmp_path / "readme.py"
    path.write_text(f"if __name__ == '__main__':\n    {code.replace(chr(10), chr(10) + '    ')}\n")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path)], cwd=tmp_path, capture_output=True, text=True,
        env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 64])" in done.stdout
    assert (tmp_path / "log" / "ptl_own" / "model" / "model.pth.tar-1").is_file()


def test_the_commands_of_the_readme_are_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line for block in blocks("sh") for line in block.splitlines() if "tools/main.py" in line]
    assert len(lines) == 2
    for line in lines:
        arguments = shlex.split(line.partition("tools/main.py")[2])
        configure(parse(arguments))


def test_the_guide_of_compatible_training_runs(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "compatible_training.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks("python", text)), {})
    assert re.search(r"loss_x \S+  loss_rbcl \S+  loss_l2 \S+", capsys.readouterr().out)
    assert (tmp_path / "log" / "new" / "old_features.npy").is_file()
    monkeypatch.chdir(ROOT)
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        parsed = parse(shlex.split(line.partition("tools/main.py")[2]))
        assert configure_chain(parsed) or configure(parsed)


def test_the_guide_of_compatible_training_names_every_setting_and_method():
    guide = (ROOT / "docs" / "compatible_training.md").read_text()
    names = [name for name in configurations() if name.startswith("compat/") and not name.endswith("_old")]
    for name in names:
        assert f"`{name.rpartition('/')[2]}`" in guide or f"`{name}`" in guide, name


def test_the_two_commands_come_first():
    first, second = blocks("sh")[:2]
    for line in (first, second):
        assert line.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[test]' && python ")
        assert line.count("\n") == 1
    assert "configs/quickstart.yaml" in first
    assert "pytest" in second


def test_the_table_of_keys_is_the_one_in_the_code():
    assert (ROOT / "docs" / "config.md").read_text().endswith(as_markdown())


def test_every_public_name_is_documented():
    guide = README + "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("evaluation", "compatibility"))
    for name in torchreid_ptl.evaluation.__all__:
        assert re.search(rf"\b{name}\b", guide), name
    public = [
        name
        for name in torchreid_ptl.__all__
        if not name.startswith("_") and name not in ("losses", "models", "evaluation")
    ]
    compatible = tuple(torchreid_ptl.losses.registered_losses().values())  # they have a guide of their own
    for name in [*public, *(item.__name__ for item in (*ENGINES, *LOSSES) if item not in compatible)]:
        assert re.search(rf"\b{name}\b", README), name


def test_the_guide_of_compatible_losses_names_each_and_what_it_needs():
    guide = (ROOT / "docs" / "losses.md").read_text()
    for loss in LOSSES:
        if issubclass(loss, torchreid_ptl.losses.CompatibleLoss):
            row = next(line for line in guide.splitlines() if line.startswith("|") and f"`{loss.__name__}" in line)
            assert all(f"`{name}`" in row for name in loss.needs), row


def test_every_model_and_configuration_is_listed():
    for name in [
        *splittable(),
        "mgn",
        "mgn_ptl",
        "mgn_ptl_v2",
        *(path.stem for path in (ROOT / "configs").glob("*.yaml")),
    ]:
        assert f"`{name}`" in README, name


def test_every_public_module_and_function_has_a_docstring():
    for item in (torchreid_ptl, torchreid_ptl.models, torchreid_ptl.losses, torchreid_ptl.evaluation):
        assert item.__doc__
        for name in getattr(item, "__all__", []):
            value = getattr(item, name)
            assert name == "__version__" or value.__doc__, name


WITHOUT_EXAMPLE = ("__init__", "compatible", "registry")
LOSS_FILES = [
    f"losses.{path.stem}"
    for path in sorted((ROOT / "torchreid_ptl" / "losses").glob("*.py"))
    if path.stem not in WITHOUT_EXAMPLE
]
MATHEMATICS = [*LOSS_FILES, *EVALUATION]


MORE_FILES = ["config.loading", "config.settings", "config.shipped"]
MORE_FILES += ["runs.spread", "runtime.tables", "config.request", "report.visual.ranklist"]


@pytest.mark.parametrize("module", ["cells", *MORE_FILES, *MATHEMATICS])
def test_examples_in_docstrings(module):
    import doctest
    import importlib

    import torch

    torch.manual_seed(0)
    loaded = importlib.import_module(f"torchreid_ptl.{module}")
    result = doctest.testmod(loaded, extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


def test_the_project_speaks_of_the_project_alone():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git here")
    words = re.compile(r"\b(issue #?\d|subagent|/work/|shared/data)", re.IGNORECASE)
    for name in tracked.stdout.split():
        if name != "LICENSE" and name != "tests/test_documentation.py":
            found = words.findall((ROOT / name).read_text(errors="ignore"))  # a picture is no text
            assert not found, (name, found)
