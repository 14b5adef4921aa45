"""Training and test: one run, or a chain of them."""

from typing import Any

from ..config.request import Config, configure, request
from .chain import Chain
from .dry_run import try_chain, try_run
from .run import Run


def train(config: Config = None, *, dry_run: bool = False, resume: bool = False, **overrides: Any) -> Any:
    """Trains and tests a model, or a chain of them.

    Args:
        config: a configuration file or its name, several of them (later ones win), or a tree of settings.
        dry_run: build everything with synthetic images and run two steps, without data.
        resume: continue an interrupted run, if there is one.
        **overrides: settings that win over ``config``: a mapping for each section, ``train={"max_epoch": 5}``, or
            dotted keys, ``**{"train.max_epoch": 5}``.

    Returns:
        The engine with its results; of a chain, the chain.

    Raises:
        ConfigError: an unknown key, a value that is not allowed, or settings that do not go together.
        FileNotFoundError: a configuration, a file of weights or the folder of a data set is missing.

    Example::

        engine = torchreid_ptl.train("quickstart", train={"max_epoch": 1})
        print(engine.results["drawn_pedestrians"].mAP)
    """
    asked = request(config, overrides)
    if asked.has_chain:
        chain = Chain.of(asked)
        return try_chain(chain) if dry_run else chain.execute(resume=resume)
    run = Run(configure(asked))
    if dry_run:
        return try_run(run)
    return run.execute(resume=resume)
