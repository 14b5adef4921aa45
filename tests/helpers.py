"""What the commands make of their arguments."""

from torchreid_ptl.cli.arguments import asked
from torchreid_ptl.cli.train import main, read
from torchreid_ptl.config.request import configure
from torchreid_ptl.runs import Chain, Run


def parse(arguments):
    """The request of the command that trains."""
    return asked(read(arguments))


def configure_chain(request):
    """The chain of a request; None when it is a single run."""
    return Chain.of(request) if request.has_chain else None


def run(config):
    """Runs a configuration; the engine."""
    return Run(config).execute()


__all__ = ["configure", "configure_chain", "main", "parse", "run"]
