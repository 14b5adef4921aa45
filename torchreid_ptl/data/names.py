"""Names of data sets as a command line or a configuration gives them: registered, parts of one, joined."""

from collections.abc import Iterable, Sequence
from itertools import combinations

from .. import host
from . import joined, parts
from .joined import PREFIX, parts_of
from .parts import part_of, whole_of


def ensure_registered(names: Iterable[str]) -> None:
    """Registers parts and joined sets that are not registered yet; leaves other names alone, known or not.

    After it the host's own data manager takes such names too.

    Args:
        names: such as ``class30:market1501``, ``joined:market1501+msmt17`` or ``joined:class30:market1501+msmt17``.

    Raises:
        ValueError: a wrong name of a part or of a joined set, or a joined set in which somebody would be two people.
    """
    for name in names:
        if name not in host.image_datasets():
            inside = name.removeprefix(PREFIX).split("+") if name.startswith(PREFIX) else [name]
            parts.ensure_parts(inside)
            _require_nobody_twice(
                f"{name!r} joins {', '.join(inside)}", [(each, each) for each in dict.fromkeys(inside)]
            )
            joined.ensure_joined([name])


def wholes_of(name: str) -> tuple[str, ...]:
    """The data sets whose folders are read for a registered name."""
    return tuple(dict.fromkeys(whole_of(piece) for piece in parts_of(name)))


def check_use(sources: Sequence[str], targets: Sequence[str], combineall: bool = False) -> None:
    """Makes sure that parts, joined sets and sets for training only are used as such; registers the first two.

    Args:
        sources: data sets to train on.
        targets: data sets to test on.
        combineall: ``data.combineall``.

    Raises:
        ValueError: a wrong name of a part or a joined set, nothing to test on in a target, the same test twice, an
            identity that would be trained as two, or a part or a joined set with ``combineall``.
    """
    ensure_registered((*sources, *targets))
    for name in targets:
        if host.is_train_only(name):
            raise ValueError(joined.no_target(name, parts_of(name)))
    _require_different_tests(targets)
    made = [name for name in sources if part_of(name) or parts_of(name) != (name,)]
    if made and combineall:
        part = part_of(made[0])
        raise ValueError(parts.no_combineall(part) if part else joined.no_combineall(made[0]))
    if made:
        pieces = [(piece, name) for name in sources for piece in parts_of(name)]
        _require_nobody_twice(f"data.sources are {', '.join(sources)}", pieces)


def _require_different_tests(targets: Sequence[str]) -> None:
    for first, second in combinations(targets, 2):
        if whole_of(first) == whole_of(second) and (part_of(first) or part_of(second)):
            raise ValueError(
                f"data.targets names {first} and {second}, which have the same query and gallery: only training images "
                f"are cut. Test on {whole_of(first)} alone"
            )


def _require_nobody_twice(said: str, pieces: Sequence[tuple[str, str]]) -> None:
    """Compares pieces, each with the name that it is in."""
    for (first, its), (second, others) in combinations(pieces, 2):
        if first == second:
            raise ValueError(
                f"{said}, and {first} is in {its} and in {others}: each of its people would be trained as two. Name it "
                "once"
            )
        if _share_people(first, second):
            whole = whole_of(first)
            raise ValueError(
                f"{said}, and {first} and {second} share people of {whole}: each of them would be trained as two. Name "
                f"one of them; class30:{whole} and class30-rest:{whole}, for example, share nobody"
            )


def _share_people(first: str, second: str) -> bool:
    if whole_of(first) != whole_of(second):
        return False
    one, other = part_of(first), part_of(second)
    return not (one and other) or one.shares_people(other)
