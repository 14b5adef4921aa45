"""JSON that every reader takes."""

import json
import math
from collections.abc import Mapping
from typing import Any


def as_json(content: Mapping[str, Any]) -> str:
    r"""The content as indented JSON with a final newline; a number that is not finite is null, and printed.

    Example:
        >>> print(as_json({"targets": {"a": {"mAP": float("nan")}}}).replace("\n", ""))
        Not finite, and null in the file: targets.a.mAP (nan)
        {  "targets": {    "a": {      "mAP": null    }  }}
    """
    lost: list[str] = []
    text = json.dumps(_finite(content, "", lost), indent=2, allow_nan=False)
    if lost:
        print(f"Not finite, and null in the file: {', '.join(lost)}")
    return f"{text}\n"


def _finite(value: Any, place: str, lost: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each, f"{place}.{key}" if place else str(key), lost) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each, f"{place}[{index}]", lost) for index, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(f"{place} ({value})")
        return None
    return value
