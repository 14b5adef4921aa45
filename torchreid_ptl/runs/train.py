"""One run: training, test, and what both leave."""

import time
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from ..build.training import build_datamanager, build_engine, run_options
from ..data.preflight import check_folders
from ..engines import ImagePTLEngine
from ..report.files import prepare_folder, require_no_chain, write_config, write_results
from ..report.target import TargetResult, add_verification, check_shown
from ..runtime.console_log import log_to
from ..runtime.memory import keep_freed_memory
from ..runtime.seeding import seed_everything
from .comparison import compare_with_old


def run(config: CfgNode, shown: Sequence[int] = ()) -> ImagePTLEngine:
    """Runs a configuration from seed to pictures.

    Args:
        config: checked and frozen.
        shown: queries whose rank lists are shown, instead of those that ``eval.rank_lists`` chooses.

    Returns:
        The engine, with its results.
    """
    started = time.monotonic()
    folder = Path(config.data.save_dir)
    require_no_chain(folder)
    check_folders(config.data.root, [*config.data.sources, *config.data.targets])
    seed_everything(config.train.seed)
    keep_freed_memory()
    with log_to(folder, "test" if config.test.evaluate else "train"):
        datamanager = build_datamanager(config)
        for name, sides in datamanager.test_loader.items():
            check_shown(shown, len(sides["query"].dataset), name)
        engine = build_engine(config, datamanager)
        prepare_folder(config, datamanager)
        parameters = sum(p.numel() for p in engine.plain_model().parameters())
        print(f"Model {config.model.name}: {parameters:,} parameters")
        engine.run(**run_options(config))
        if engine.bad_images:
            bad = sorted(set(engine.bad_images))
            print(f"{len(bad)} unreadable image(s) left out: {', '.join(bad[:10])}{' ...' if len(bad) > 10 else ''}")
        write_config(config, folder)
        written = write_results(
            _judged(engine, config),
            config,
            folder,
            time.monotonic() - started,
            model={"name": config.model.name, "parameters": parameters, "weights": config.model.load_weights},
            bad_images=engine.bad_images,
            history={} if config.test.evaluate else engine.history,
            shown=shown,
        )
        print("Wrote: " + ", ".join(map(str, [*written, *compare_with_old(engine, config, folder)])))
    return engine


def _judged(engine: ImagePTLEngine, config: CfgNode) -> list[TargetResult]:
    targets = [
        add_verification(name, *engine.descriptors[name], result, config) for name, result in engine.results.items()
    ]
    for tested in targets:
        if config.test.evaluate and tested.verification is not None:
            print(f"{tested.name}, {tested.verification}")
    return targets
