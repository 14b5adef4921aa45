"""Methods of backward-compatible training against each other: same data, same budget, same seeds.

    python benchmarks/compatible_methods.py run --setting osnet_cross_domain --seeds 1 2 3 \
        --methods independent rbcl l2@compat.l2.weight=3 --out log/methods --root $DATA \
        model.load_weights $NEW compat.old_weights $OLD
    python benchmarks/compatible_methods.py table log/methods

A setting is a file of configs/compat/. A method is one of configs/compat/methods/, and may be followed by settings of
its own: @KEY=VALUE@KEY=VALUE. KEY VALUE pairs at the end are for all. Runs that are finished are kept, so that a
command can be repeated after a stop, and run twice at the same time: each takes other runs. The old model sees queries
and gallery once for all runs.

The table gives mean and sample standard deviation over seeds. The update gain of a run is taken against the run of
`independent` with the same seed, and with the same network where a method's own settings say model.*. Figures are
rounded down, below zero too. Methods get the same data and number of epochs; those that rank within the batch, and they
alone, say that they want a sampler of identities.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import itertools
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from measure import machine

from torchreid_ptl.build.old_model import build_old_model
from torchreid_ptl.build.training import build_datamanager, build_engine, run_options
from torchreid_ptl.cli.arguments import answered, release_keys
from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import flatten, load_config, to_dict
from torchreid_ptl.config.shipped import configurations
from torchreid_ptl.data.old_features import list_digest
from torchreid_ptl.data.preflight import check_folders
from torchreid_ptl.engines import Preprocessing
from torchreid_ptl.evaluation import EvaluationOptions, compatibility, evaluate_ranking
from torchreid_ptl.evaluation.compatibility_result import update_gain
from torchreid_ptl.evaluation.result import Score
from torchreid_ptl.runtime.console_log import log_to
from torchreid_ptl.runtime.files import replace_file
from torchreid_ptl.runtime.memory import keep_freed_memory
from torchreid_ptl.runtime.seeding import seed_everything

NAMES = [name.removeprefix("compat/") for name in configurations() if name.startswith("compat/")]
SETTINGS = [name for name in NAMES if "/" not in name and name != "quickstart" and not name.endswith("_old")]
BASELINE = "independent"
COLUMNS = {
    "cross mAP": lambda run, alone: share(run, "cross_test", "mAP"),
    "cross CMC-1": lambda run, alone: share(run, "cross_test", "cmc1"),
    "self mAP": lambda run, alone: share(run, "self_test", "mAP"),
    "self CMC-1": lambda run, alone: share(run, "self_test", "cmc1"),
    "gain (mAP)": lambda run, alone: gain(run, alone),
    "negative flips": lambda run, alone: 100 * run["backfill"][0]["negative_flips"] if "backfill" in run else math.nan,
    "area (mAP)": lambda run, alone: share(run, "backfill_area", "mAP"),
}


def configuration(setting, variant, seed, folder, options):
    """The configuration of one run."""
    method, *own = variant.split("@")
    wrong = [each for each in own if "=" not in each]
    if wrong:
        raise SystemExit(f"{variant}: {wrong[0]!r} is no setting; a method is METHOD or METHOD@KEY=VALUE")
    own = itertools.chain.from_iterable(each.split("=", 1) for each in own)
    said = [*options, *own, "train.seed", str(seed), "data.save_dir", str(folder)]
    if not torch.cuda.is_available():
        said += ["use_gpu", "False"]
    config = load_config([f"compat/{setting}", f"compat/methods/{method}"], said)
    validate(config)
    check_folders(config.data.root, [*config.data.sources, *config.data.targets])
    config.freeze()
    return config


def train_and_compare(config, out):
    """Trains, tests, and puts the new model before the old gallery; the results of each target."""
    seed_everything(config.train.seed)
    keep_freed_memory()
    datamanager = build_datamanager(config)
    old = {target: old_descriptors(config, datamanager, target, out) for target in datamanager.test_loader}
    engine = build_engine(config, datamanager)
    engine.run(**run_options(config))
    rule = config.compat.embedding if config.compat.embedding in ("truncate", "pad") else "error"
    return {target: compared(new, old[target], rule, config) for target, new in engine.descriptors.items()}


def compared(new, old, rule, config):
    """What is measured of the new model's (query, gallery) descriptors.

    Of an independent model with a dimension of its own that is the self test alone.
    """
    old = [dataclasses.replace(side, features=features) for side, features in zip(new, old, strict=True)]
    if new[0].features.shape[1] != old[0].features.shape[1] and rule == "error":
        tests, options = {"self_test": new, "old_test": old}, EvaluationOptions(metric="cosine")
        return {name: Score.of(evaluate_ranking(*sides, options)).as_dict() for name, sides in tests.items()}
    result = compatibility(new, old, EvaluationOptions(seed=config.train.seed), dimensions=rule)
    print(result)
    return result.as_dict()


def old_descriptors(config, datamanager, target, out):
    """Descriptors (Q, D) and (G, D) by the old model, kept for all runs."""
    old = build_old_model(config, Preprocessing.of(datamanager))
    options = EvaluationOptions.of(flip=config.eval.flip, precision=config.eval.precision)
    sides = [datamanager.test_loader[target][side].dataset.dataset.data for side in ("query", "gallery")]
    paths = [os.path.abspath(path) for images in sides for path, *_ in images]
    path = out / f"old-{list_digest(paths, of=f'{old.fingerprint()} {options}')}.pt"
    if not path.exists():
        loading = {"workers": config.data.workers, "on_bad_image": config.data.on_bad_image}
        found = [old.describe(images, f"{target}, old", options, **loading).features for images in sides]
        made = path.with_suffix(f".{os.getpid()}")
        torch.save(found, made)
        made.replace(path)
    return torch.load(path)


def run(arguments):
    """Makes the runs that nobody has made or is making."""
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    options = ["data.root", arguments.root] * bool(arguments.root) + arguments.opts
    jobs = {
        f"{arguments.setting}-{variant}-{seed}".replace("/", "_").replace(" ", ""): (variant, seed)
        for seed, variant in itertools.product(arguments.seeds, arguments.methods)
    }
    configs = {name: configuration(arguments.setting, *job, out / name, options) for name, job in jobs.items()}
    for name, config in configs.items():  # before long work starts
        require_same(out / f"{name}.json", config)
    for name, (variant, seed) in jobs.items():
        path = out / f"{name}.json"
        with claimed(out / f"{name}.lock") as mine:
            if mine and not path.exists():
                print(f"{variant}, seed {seed}", flush=True)
                started = time.monotonic()
                with log_to(out / name, "train"):
                    results = train_and_compare(configs[name], out)
                content = {"setting": arguments.setting, "variant": variant, "seed": seed, "options": arguments.opts}
                content |= {"seconds": time.monotonic() - started, "machine": machine()}
                content |= {"config": to_dict(configs[name]), "results": results}
                replace_file(path, json.dumps(content, indent=1).encode())


def require_same(path, config):
    """Makes sure that a run made before had the settings that are wanted now."""
    if path.exists():
        made, wanted = dict(flatten(json.loads(path.read_text())["config"])), dict(flatten(to_dict(config)))
        other = [key for key in wanted if made.get(key) != wanted[key] and key != "data.save_dir"]
        if other:
            raise SystemExit(
                f"{path} is of other settings: {', '.join(other)}. Give --out another folder, or repeat the command as "
                "it was"
            )


@contextlib.contextmanager
def claimed(path):
    """Whether a lock is this process's while the block runs; it falls with the process."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def table(folder):
    """Mean and spread of each method, in Markdown."""
    read = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    runs = [run for run in read if "variant" in run]
    if not runs:
        raise SystemExit(f"{folder} holds no results; make some with: run ... --out {folder}")
    lines = []
    for setting, target in sorted({(run["setting"], target) for run in runs for target in run["results"]}):
        mine = [run for run in runs if run["setting"] == setting and target in run["results"]]
        old = mine[0]["results"][target]["old_test"]
        if any(run["results"][target]["old_test"] != old for run in mine):
            raise SystemExit(f"{folder} holds runs of {setting} with different old models; give each a folder")
        lines += [f"{setting}, {target}: old test mAP {cut(100 * old['mAP'])}, CMC-1 {cut(100 * old['cmc1'])}", ""]
        lines += [f"| method | seeds | {' | '.join(COLUMNS)} | compatible |", "|---" * (len(COLUMNS) + 3) + "|"]
        for variant in sorted({run["variant"] for run in mine}, key=lambda name: (name != BASELINE, name)):
            found, alone = (of_seeds(mine, name, target) for name in (variant, baseline(variant)))
            lines.append(row(variant, found, alone))
        lines.append("")
    return "\n".join(lines)


def of_seeds(runs, variant, target):
    """The results of a variant by seed."""
    found = {run["seed"]: run["results"][target] for run in runs if run["variant"] == variant}
    return dict(sorted(found.items()))


def baseline(variant):
    """The independent run of the same network."""
    return "@".join([BASELINE, *sorted(own for own in variant.split("@")[1:] if own.startswith("model."))])


def row(variant, found, alone):
    """One line of the table."""
    cells = [spread([value(result, alone.get(seed)) for seed, result in found.items()]) for value in COLUMNS.values()]
    yes = sum(result.get("compatible", False) for result in found.values())
    method, *own = variant.split("@")
    name = f"{method} ({', '.join(own)})" if own else method
    return f"| {name} | {', '.join(map(str, found))} | {' | '.join(cells)} | {yes} of {len(found)} |"


def share(result, test, figure):
    """A score in percent; nan where it was not measured."""
    return 100 * result[test][figure] if test in result else math.nan


def gain(result, alone):
    """Update gain in mAP against the independent run; nan where it cannot be said."""
    if alone is None or "cross_test" not in result:
        return math.nan
    cross, old, best = (Score(**test) for test in (result["cross_test"], result["old_test"], alone["self_test"]))
    return update_gain(cross, old, best).mAP


def spread(values):
    """Mean, and in brackets the sample standard deviation where there are several."""
    if any(math.isnan(value) for value in values):
        return ""
    deviation = f" ({cut(statistics.stdev(values))})" if len(values) > 1 else ""
    return f"{cut(statistics.mean(values))}{deviation}"


def cut(value):
    """Two decimals, never rounded up."""
    return f"{math.floor(100 * value + 1e-9) / 100:.2f}"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("run", help="train and compare")
    make.add_argument("--setting", required=True, choices=SETTINGS)
    make.add_argument("--methods", nargs="+", required=True, metavar="METHOD[@KEY=VALUE]")
    make.add_argument("--seeds", nargs="+", default=["1", "2", "3"])
    make.add_argument("--out", required=True, help="folder of the results")
    make.add_argument("--root", default="", help="folder that holds the data sets")
    make.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    make.set_defaults(work=run)
    show = commands.add_parser("table", help="what the runs of a folder gave")
    show.add_argument("folder")
    show.set_defaults(work=lambda arguments: print(table(arguments.folder)))
    parsed = parser.parse_args()
    if parsed.work is run:
        release_keys(parsed, "methods", "seeds")
        parsed.seeds = [int(seed) for seed in parsed.seeds]
    return parsed


if __name__ == "__main__":
    given = parse()
    sys.exit(answered(lambda: given.work(given)))
