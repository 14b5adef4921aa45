"""Names of data sets as a command line or a configuration gives them: registered, parts of one, joined."""

from collections.abc import Iterable, Sequence
from itertools import combinations, product

from .. import host
from ..runtime.errors import ArgumentError
from . import joined, parts
from .joined import PREFIX, parts_of
from .parts import Part, part_of, read_part, test_of, whole_of


def ensure_registered(names: Iterable[str]) -> None:
    """Registers parts and joined sets that are not registered yet; leaves other names alone, known or not.

    After it the host's own data manager takes such names too.

    Args:
        names: such as ``class30:market1501``, ``holdout20:market1501``, ``joined:market1501+msmt17`` or
            ``joined:class30:market1501+msmt17``.

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

    Raises:
        ValueError: a wrong name of a part or a joined set, nothing to test on in a target, the same test twice, an
            identity that would be trained as two, a held part tested on somebody who is trained on, or with
            ``combineall`` a part, a joined set or a target among the sources.
    """
    ensure_registered((*sources, *targets))
    for name in targets:
        if host.is_train_only(name):
            raise ArgumentError(joined.no_target(name, parts_of(name)))
    _require_different_tests(targets)
    twice = [name for name in targets if list(targets).count(name) > 1]
    if twice:
        raise ArgumentError(f"{{targets}} are {', '.join(targets)}: {twice[0]} is named twice. Name it once")
    pieces = [(piece, name) for name in sources for piece in parts_of(name)]
    _require_held_out(targets, pieces)
    made = [name for name in sources if part_of(name) or parts_of(name) != (name,)]
    if made and combineall:
        part = part_of(made[0])
        raise ArgumentError(parts.no_combineall(part) if part else joined.no_combineall(made[0]))
    _require_unseen_tests(sources, targets, combineall)
    if made or len(set(sources)) < len(sources):
        _require_nobody_twice(f"{{sources}} are {', '.join(sources)}", pieces)


def sources_to_test(targets: Sequence[str]) -> list[str]:
    """Sources for a run that only tests, since torchreid loads some in any case: the targets, or one of them.

    Of targets among which are held parts, others may train on the people whom these hold out; the largest held part
    does not.
    """
    held = {name: part.percent for name in targets if (part := read_part(name)) and part.tested}
    return [max(held, key=lambda name: held[name])] if held else list(targets)


def _require_unseen_tests(sources: Sequence[str], targets: Sequence[str], combineall: bool) -> None:
    seen = sorted(set(sources) & {test_of(target) for target in targets}) if combineall else []
    if seen:
        raise ArgumentError(
            f"{{combineall}} True trains on the query and gallery images of {', '.join(seen)} too, which {{targets}} "
            "tests on: the scores would be those of training images. Set {combineall} False or test on another set"
        )


def _require_different_tests(targets: Sequence[str]) -> None:
    for first, second in combinations(targets, 2):
        if test_of(first) == test_of(second) and (part_of(first) or part_of(second)):
            raise ArgumentError(
                f"{{targets}} names {first} and {second}, which have the same query and gallery: only training images "
                f"are cut. Test on {test_of(first)} alone"
            )


def _require_held_out(targets: Sequence[str], pieces: Sequence[tuple[str, str]]) -> None:
    """Compares the tests of held parts with the pieces of sources, each with the name that it is in."""
    for target, (piece, its) in product(targets, pieces):
        part = part_of(target)
        if part and part.tested and _people_of(piece).shares_people(part.tested):
            inside = piece if its == piece else f"{piece} in {its}"
            raise ArgumentError(
                f"{{targets}} names {target}, which is tested on the training images of {part.tested}, and "
                f"{{sources}} trains on people in them, with {inside}: the scores would not be those of people never "
                f"seen. Train on {target} or on another data set, or test on {part.whole}"
            )


def _require_nobody_twice(said: str, pieces: Sequence[tuple[str, str]]) -> None:
    """Compares pieces, each with the name that it is in."""
    for (first, its), (second, others) in combinations(pieces, 2):
        if first == second:
            where = f"is in {its} and in {others}" if its != others else "is named twice"
            raise ArgumentError(
                f"{said}, and {first} {where}: each of its people would be trained as two. Name it once"
            )
        if _people_of(first).shares_people(_people_of(second)):
            whole = whole_of(first)
            raise ArgumentError(
                f"{said}, and {first} and {second} share people of {whole}: each of them would be trained as two. Name "
                f"one of them; class30:{whole} and class30-rest:{whole}, for example, share nobody"
            )


def _people_of(name: str) -> Part:
    """The part that a name stands for; a data set is all its people."""
    return part_of(name) or Part("class", 100, False, name)
