"""Finds configuration files by path, or by name among those that come with the package."""

from collections.abc import Sequence
from pathlib import Path

from ..runtime.files import safe_name
from ..runtime.hints import nearest

_PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = next((place for place in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if place.is_dir()), _PACKAGE)
"""The folder of the shipped configurations: in an installed package, next to the package in a checkout."""
_ENDINGS = (".yaml", ".yml")
_BASES = "base/"


def configurations() -> list[str]:
    """The names of the shipped configurations, as ``--config-file`` takes them.

    Files that others build upon (``base/``) are omitted. Those of ``compat/methods/`` follow a setting:
    ``--config-file compat/market1501 compat/methods/rbcl``.

    Example:
        >>> "quickstart" in configurations()
        True
    """
    return [name for name in _names() if not name.startswith(_BASES)]


def find_configuration(name: str | Path) -> Path:
    """The file of a configuration.

    Args:
        name: a path, with or without ``.yaml``, or the name of a shipped configuration.

    Raises:
        FileNotFoundError: there is none; names the nearest shipped one.
    """
    given = Path(name).expanduser()
    for path in (given, Path(f"{given}.yaml"), SHIPPED / name, SHIPPED / f"{name}.yaml"):
        if path.is_file():
            return path
    last = [known for known in _names() if known.rpartition("/")[2] == _stem(Path(name).name)]
    close = next(iter(last), None) or nearest(str(name), _names())
    raise FileNotFoundError(
        f"No configuration {name}: neither a file nor a shipped one"
        f"{f'; did you mean {close!r}?' if close else '.'} torchreid_ptl configs lists the shipped ones"
    )


def default_folder(paths: Sequence[Path]) -> str:
    """The folder of a run that sets no ``data.save_dir``: ``log/`` and the names of its configuration files.

    Args:
        paths: at least one file; a shipped one counts with its folder if it comes first.

    Example:
        >>> default_folder([SHIPPED / "compat/quickstart.yaml", Path("my/exp.yaml")])
        'log/compat/quickstart/exp'
    """
    first, *others = (path.resolve() for path in paths)
    begin = first.relative_to(SHIPPED) if first.is_relative_to(SHIPPED) else Path(first.name)
    names = [*begin.parts[:-1], *(_stem(path.name) for path in (begin, *others))]
    return str(Path("log", *map(safe_name, names)))


def _names() -> list[str]:
    return sorted(_stem(path.relative_to(SHIPPED).as_posix()) for path in SHIPPED.rglob("*.yaml"))


def _stem(name: str) -> str:
    return next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)), name)
