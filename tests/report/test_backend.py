"""Pictures under a backend of matplotlib that a notebook has named, and output on a console of few letters."""

import os
import subprocess
import sys

import pytest

DRAW = """
import os, sys
from pathlib import Path
from torchreid_ptl.report.visual.curves import draw_training_curves, save_figure
assert "matplotlib" not in sys.modules
save_figure(sys.argv[1], draw_training_curves({"losses/loss": [(1, 2.0), (2, 1.0)]}))
from torchreid_ptl.report.visual.ranklist import _font
_font(12, False)
assert os.environ.get("MPLBACKEND") == (sys.argv[2] or None), os.environ.get("MPLBACKEND")
"""


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("module://matplotlib_inline.backend_inline", marks=pytest.mark.slow),
        "nonsense",
        pytest.param("", marks=pytest.mark.slow),
    ],
)
def test_pictures_are_drawn_whatever_backend_is_named(tmp_path, backend):
    named = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    named.update({"MPLBACKEND": backend} if backend else {})
    call = [sys.executable, "-c", DRAW, str(tmp_path / "curve.png"), backend]
    done = subprocess.run(call, capture_output=True, text=True, env=named)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_letters_that_the_console_lacks_are_escaped():
    code = "from torchreid_ptl.cli.arguments import report_user_errors\n"
    code += "print(report_user_errors(lambda: print('log/\\u00e9t\\u00e9 \\u2713')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.stdout.splitlines() == [r"log/\xe9t\xe9 \u2713", "0"], done.stderr
