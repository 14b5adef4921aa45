"""Errors whose messages name settings: arguments for Python, configuration keys for commands."""

import re
from collections.abc import Mapping


class WordedError(Exception):
    """Mixin of errors whose message has ``{argument}`` for each argument it names; ``str`` gives the argument itself.

    Example:
        >>> str(ArgumentError("{precision} is 'int4'"))
        "precision is 'int4'"
        >>> worded(ArgumentError("{precision} is 'int4'"), {"precision": "train.precision"})
        "train.precision is 'int4'"
    """

    def __str__(self) -> str:
        return _named(str(self.args[0]), {}) if len(self.args) == 1 else super().__str__()


class ArgumentError(WordedError, ValueError):
    """An argument cannot be used; the message says what was got, what is allowed and what to do."""


class MissingFileError(WordedError, FileNotFoundError):
    """A file that an argument names, or that a run wrote, is not there."""


def worded(error: BaseException, names: Mapping[str, str]) -> str:
    """The message of an error with ``names`` for the arguments that it names; that of any other error as it is."""
    if isinstance(error, WordedError) and len(error.args) == 1:
        return _named(str(error.args[0]), names)
    return str(error)


def _named(template: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\{([a-z]\w*)\}", lambda found: names.get(found[1], found[1]), template)
