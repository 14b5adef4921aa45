"""Imports run downwards only, and files stay rooms."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "torchreid_ptl"

BELOW_ENGINES = {"cells", "data", "evaluation", "host", "losses", "models", "runtime", "version"}
MAY_IMPORT = {
    "__init__": {"build", "cells", "data", "engines", "evaluation", "host", "losses", "models", "registration"}
    | {"runs", "runtime", "version"},
    "__main__": {"cli"},
    "registration": {"data", "engines", "host", "losses", "models", "runtime"},
    "cli": {"runs", "report", "build", "config", "engines", *BELOW_ENGINES},
    "runs": {"report", "build", "config", "engines", *BELOW_ENGINES},
    "report": {"config", "engines", *BELOW_ENGINES},
    "build": {"config", "engines", *BELOW_ENGINES},
    "engines": BELOW_ENGINES - {"models"},
    "config": {"data", "host", "losses", "runtime"},
    "data": {"evaluation", "host", "runtime"},
    "models": {"backbones", "cells", "host"},
    "runtime": {"host"},
    "backbones": {"host"},
    "cells": set(),
    "losses": {"runtime"},
    "evaluation": {"host", "runtime"},
    "host": set(),
    "version": set(),
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms a file imports, whether relatively or by the package's name."""
    rooms = set()
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = node.level == depth
            if above:
                rooms |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchreid_ptl"):
            rooms |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("torchreid_ptl.")}
    return rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is a new room: say in the table who may call whom"
    assert imported_rooms(path) - {room} <= MAY_IMPORT[room]


def test_the_check_sees_an_upward_import(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "losses").mkdir(parents=True)
    bad = package / "losses" / "bad.py"
    bad.write_text("from ..engines import ImagePTLEngine\nfrom torchreid_ptl.models import PTL\n")
    monkeypatch.setitem(globals(), "PACKAGE", package)
    assert imported_rooms(bad) == {"engines", "models"}


def test_one_function_decides_the_device():
    asking = [path.name for path in PACKAGE.rglob("*.py") if "cuda.is_available" in path.read_text()]
    assert sorted(asking) == ["device.py", "seeding.py"]  # the latter keeps the generators' states


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_host_knows_the_hosts_private_parts(path):
    text = path.read_text()
    if path.name == "host.py":
        return
    assert "__model_factory" not in text
    assert "torchreid.reid" not in text
    assert "import torchreid." not in text
    assert "weights_only=False" not in text
