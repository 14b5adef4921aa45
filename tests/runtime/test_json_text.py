"""JSON that is valid whatever the numbers are."""

import json
import math

import numpy as np

from torchreid_ptl.runtime.json_text import as_json


def test_numbers_that_are_not_finite_are_null_and_named(capsys):
    content = {"targets": {"a": {"mAP": math.nan, "cmc": {"1": np.float64("inf")}}}, "list": [1, -math.inf], "n": 2}
    expected = {"targets": {"a": {"mAP": None, "cmc": {"1": None}}}, "list": [1, None], "n": 2}
    assert json.loads(as_json(content), parse_constant=lambda name: f"not JSON: {name}") == expected
    said = "Not finite, and null in the file: targets.a.mAP (nan), targets.a.cmc.1 (inf), list[1] (-inf)\n"
    assert capsys.readouterr().out == said


def test_finite_numbers_are_as_they_were(capsys):
    content = {"a": 0.1, "b": [1, True, None, "nan"], "c": (2,)}
    assert as_json(content) == json.dumps(content, indent=2) + "\n"
    assert capsys.readouterr().out == ""
