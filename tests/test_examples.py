"""The examples run, in ten lines or fewer, and without the command line."""

import ast
import runpy
from pathlib import Path

import pytest

from torchreid_ptl.losses import registry

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
ORDER = ["fine_tune", "evaluate", "distil", "compatible", "own_loss", "clusters", "chain", "sweep"]
WRITTEN = {
    "fine_tune": "log/fine_tune/report.html",
    "evaluate": "log/evaluation/report.html",
    "distil": "log/distil/model/model.pth.tar-2",
    "compatible": "log/compatible/model/model.pth.tar-2",
    "own_loss": "log/own_loss/report.html",
    "clusters": "log/clusters/report.html",
    "chain": "log/chain/chain.md",
    "sweep": "log/sweep/sweep.md",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the first example writes, which others begin from."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runpy.run_path(str(EXAMPLES / "fine_tune.py"), run_name="__main__")
    return folder


def test_every_example_is_in_the_list():
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(ORDER) == sorted(WRITTEN)


@pytest.mark.parametrize("name", ORDER)
def test_an_example_is_short_and_imports_no_command(name):
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text())
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not any("cli" in line for line in imports)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)]
    prose = {line for text in texts for line in range(text.lineno, text.end_lineno + 1)}
    lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
    assert 1 <= len([line for number, line in enumerate(lines, 1) if line.strip() and number not in prose]) <= 10
    assert ast.get_docstring(tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDER)
def test_an_example_runs(name, place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(registry, "_CLASSES", registry.registered_losses())  # an example adds a loss
    if name != "fine_tune":
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert (place / WRITTEN[name]).is_file()
