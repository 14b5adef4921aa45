"""Reads YAML: UTF-8, every key once, of bounded size."""

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

_MOST_VALUES = 100_000
"""Far above the largest tree: the keys of a hundred runs are about 15,000 values."""
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class ConfigError(ValueError):
    """A configuration cannot be used; the message says what was got, what is allowed and what to do."""


def read_yaml(path: Path) -> Any:
    """The content of a file; None if it is empty.

    Raises:
        ConfigError: it is not UTF-8 or no YAML, gives a key twice, contains itself, or is too large or too deep.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "")
        line = content.count(b"\n", 0, error.start) + 1
        said = f"is {found}" if found else f"is not UTF-8 (line {line}, byte 0x{content[error.start]:02x})"
        raise ConfigError(f"{path} {said}; save it as UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """The content of YAML in a text; ``origin`` names it in messages.

    Raises:
        ConfigError: as :func:`read_yaml`.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, origin, (), {}) > _MOST_VALUES:
            raise ConfigError(f"{origin} has more than {_MOST_VALUES:,} values with its aliases repeated")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is no valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{origin} is nested too deep for a configuration") from error
    except ConfigError:
        raise
    except (ValueError, OverflowError) as error:  # such as a date in month 13
        raise ConfigError(f"{origin} holds a value that YAML cannot read: {error}") from error


def _count(node: yaml.Node, origin: str, above: tuple[yaml.Node, ...], known: dict[int, int]) -> int:
    """The number of values of a node, a node that several refer to once for each."""
    if node in above:
        raise ConfigError(f"{origin}, line {_line(node)}: a value with the anchor & contains itself")
    if id(node) not in known:
        if isinstance(node, yaml.ScalarNode):
            _require_plain_number(node, origin)
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _require_single_keys(node, origin)
            inside = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            inside = node.value
        known[id(node)] = 1 + sum(_count(each, origin, (*above, node), known) for each in inside)
    return known[id(node)]


def _require_single_keys(node: yaml.MappingNode, origin: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            continue
        if key.value in lines:
            raise ConfigError(
                f"{origin} gives {key.value!r} twice, in the lines {lines[key.value]} and {_line(key)}; YAML would "
                "keep only the last: put them together"
            )
        lines[key.value] = _line(key)


def _require_plain_number(node: yaml.ScalarNode, origin: str) -> None:
    """YAML 1.1 reads 20:40 in base 60 and 010 in base 8, and nobody means that here."""
    if node.tag.endswith((":int", ":float")) and _OTHER_BASE.fullmatch(node.value):
        base = 60 if ":" in node.value else 8
        raise ConfigError(
            f"{origin}, line {_line(node)}: YAML reads {node.value} as a number in base {base}; write a list as "
            "[20, 40], and numbers without a leading 0"
        )


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
