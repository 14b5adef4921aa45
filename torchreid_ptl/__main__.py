"""``python -m torchreid_ptl``: the same commands as ``tools/``, for an installed package."""

import sys


def main() -> int:
    """Runs the command named first; without a name, the one that trains and tests."""
    if sys.argv[1:2] == ["evaluate"]:
        from .cli.evaluate import main as evaluate

        return evaluate(sys.argv[2:])
    if sys.argv[1:2] == ["compatibility"]:
        from .cli.compatibility import main as compatibility

        return compatibility(sys.argv[2:])
    if sys.argv[1:2] == ["sweep"]:
        from .cli.sweep import main as sweep

        return sweep(sys.argv[2:])
    from .cli.train import main as train

    return train(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
