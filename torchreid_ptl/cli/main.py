"""``torchreid_ptl COMMAND ...``."""

import sys
from collections.abc import Callable, Sequence

from ..runtime.hints import hint
from ..version import __version__
from . import compatibility, evaluate, names, sweep, train

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "train": (train.main, "train and test a model, or a chain of stages"),
    "evaluate": (evaluate.main, "evaluate a trained model, or files of descriptors"),
    "compatibility": (compatibility.main, "compare versions of a model on each other's galleries"),
    "sweep": (sweep.main, "train every combination of values and seeds"),
    "models": (names.models, "list the models"),
    "datasets": (names.datasets, "list the data sets"),
    "configs": (names.configs, "list the configurations that --config-file takes by name"),
}
HELP = """usage: torchreid_ptl COMMAND ...   (torchreid_ptl COMMAND --help explains one)

{commands}

--version prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``torchreid_ptl`` and ``python -m torchreid_ptl``; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[0] if given else "--help"
    if command == "--version":
        print(f"torchreid_ptl {__version__}")
        return 0
    if command in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:14} {text}" for name, (_, text) in COMMANDS.items())), end="")
        return 0 if given else 2
    if command not in COMMANDS:
        said = f"{command!r} is no command: {hint(command, COMMANDS)}"
        if command.startswith("-"):
            said = f"A command comes first, before {command}: torchreid_ptl train {command} ..."
        print(said, file=sys.stderr)
        return 2
    return COMMANDS[command][0](given[1:])
