"""The command that trains and tests."""

from collections.abc import Sequence

from ..runs.chain import explain_interruption, prepare, run_stages
from ..runs.chain_plan import Chain
from ..runs.dry_run import dry_run, dry_run_chain
from ..runs.train import run
from .arguments import answered, configure, configure_chain, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/main.py`` and ``python -m torchreid_ptl``; returns the exit status."""
    parsed = parse(arguments)

    def work() -> None:
        chain = configure_chain(parsed)
        if chain:
            _run_chain(chain, dry=parsed.dry_run)
        elif parsed.dry_run:
            dry_run(configure(parsed), run)
        else:
            run(configure(parsed))

    return answered(work)


def _run_chain(chain: Chain, dry: bool) -> None:
    if dry:
        dry_run_chain(chain, run)
        return
    prepare(chain)
    with explain_interruption(chain):
        run_stages(chain, run)
