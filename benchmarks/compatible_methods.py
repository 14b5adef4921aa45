r"""Methods of backward-compatible training against each other: same data, same budget, same seeds.

    python benchmarks/compatible_methods.py run --setting osnet_cross_domain --seeds 1 2 3 \
        --methods independent rbcl_nccl l2@compat.l2.weight=3 --out log/methods --root $DATA \
        model.load_weights $NEW compat.old_weights $OLD
    python benchmarks/compatible_methods.py table log/methods

A setting is a file of configs/compat/, a method one of configs/compat/methods/. Settings of one method follow its name:
@KEY=VALUE@KEY=VALUE. KEY VALUE pairs are for all. The same command again keeps finished runs and resumes interrupted
ones. The old model encodes each test set once. Processes with different --seeds can have the same --out.

The table has mean and standard deviation over seeds, rounded down. The update gain of a run is relative to the run of
`independent` with the same seed and the same settings model.*.
"""

import argparse
import dataclasses
import gc
import json
import math
import os
import sys
import time
from pathlib import Path

import torch
from measure import machine

from torchreid_ptl.build.old_model import build_old_model
from torchreid_ptl.build.training import build_datamanager, build_engine, run_options
from torchreid_ptl.cli.arguments import parse, report_user_errors
from torchreid_ptl.config import differences
from torchreid_ptl.config.loading import ConfigError, read_options, to_dict
from torchreid_ptl.config.request import request
from torchreid_ptl.data.old_features import list_digest
from torchreid_ptl.engines import Preprocessing
from torchreid_ptl.evaluation import compare, rank
from torchreid_ptl.evaluation.compatibility_result import update_gain
from torchreid_ptl.evaluation.result import Score
from torchreid_ptl.runs import Sweep
from torchreid_ptl.runs.comparison import INDEPENDENT, comparison_options
from torchreid_ptl.runs.spread import spread
from torchreid_ptl.runtime.console_log import log_to
from torchreid_ptl.runtime.files import replace_file
from torchreid_ptl.runtime.memory import freed_memory_kept
from torchreid_ptl.runtime.seeding import random_state_kept, seed_everything
from torchreid_ptl.runtime.tables import as_markdown

COLUMNS = ("cross mAP", "cross CMC-1", "self mAP", "self CMC-1", "gain (mAP)", "negative flips", "area (mAP)")


def sweep_of(setting, variant, seeds, out, options):
    """The runs of a method, one for each seed."""
    method, *own = variant.split("@")
    wrong = [each for each in own if "=" not in each]
    if wrong:
        raise ConfigError(f"{variant}: {wrong[0]!r} is no setting; a method is METHOD or METHOD@KEY=VALUE")
    folder = Path(out, f"{setting}-{variant}".replace("/", "_").replace(" ", ""))
    texts = [*options, *(text for each in own for text in each.split("=", 1)), "data.save_dir", str(folder)]
    return Sweep(request([f"compat/{setting}", f"compat/methods/{method}"]).last(*read_options(texts)), seeds=seeds)


def run(arguments):
    """Makes the runs that are not finished, seed by seed."""
    setting, seeds, out = arguments.setting, arguments.seeds, Path(arguments.out)
    options = [*arguments.opts, *(["data.root", arguments.root] if arguments.root else [])]
    methods = {name: sweep_of(setting, name, seeds, out, options).runs for name in arguments.methods}
    jobs = [(name, runs[index]) for index in range(len(seeds)) for name, runs in methods.items()]
    for _, job in jobs:  # before long work starts
        job.check()
        require_same(job)
    for variant, job in jobs:
        if not results_of(job).exists():
            seed, started = job.config.train.seed, time.monotonic()
            print(f"{variant}, seed {seed}", flush=True)
            content = {"setting": setting, "variant": variant, "seed": seed, "results": train_and_compare(job, out)}
            content |= {"seconds": time.monotonic() - started, "machine": machine(), "config": to_dict(job.config)}
            replace_file(results_of(job), json.dumps(content, indent=1).encode())
            gc.collect()  # the model and what refers to it in circles would share the memory with the next one


def results_of(job):
    """The file of a finished run."""
    return Path(f"{job.folder.parent}-{job.config.train.seed}.json")


def require_same(job):
    """Makes sure that a finished run had these settings."""
    path, now = results_of(job), to_dict(job.config)
    changed = differences(json.loads(path.read_text())["config"], now, "scores") if path.exists() else []
    if changed:
        raise ConfigError(f"{path} is of other settings: {'; '.join(changed)}. Give --out another folder")


def train_and_compare(job, out):
    """Results by target. ``Run.execute`` compares too, but the old model would encode the test sets in each run."""
    config = job.config
    with freed_memory_kept(), log_to(job.folder, "train"):
        seed_everything(config.train.seed)
        datamanager = build_datamanager(config)
        with random_state_kept():  # the training is that of tools/main.py
            old = old_descriptors(config, datamanager, out)
        engine = build_engine(config, datamanager)
        engine.run(**{**run_options(config), "resume": "auto"})
        rule = config.compat.embedding if config.compat.embedding in ("truncate", "pad") else "error"
        options = comparison_options(config)
        return {target: compared(new, old[target], rule, options) for target, new in engine.descriptors.items()}


def old_descriptors(config, datamanager, out):
    """By target, (Q, D) and (G, D) descriptors by the old model; files in ``out`` keep them for all runs."""
    old, options, found = build_old_model(config, Preprocessing.of(datamanager)), comparison_options(config), {}
    for target, loaders in datamanager.test_loader.items():
        sides = [loaders[side].dataset.dataset.data for side in ("query", "gallery")]
        names = [os.path.abspath(path) for images in sides for path, *_ in images]
        path = out / f"old-{list_digest(names, f'{old.fingerprint()} {options.flip} {options.precision}')}.pt"
        if not path.exists():
            loading = {"workers": config.data.workers, "on_bad_image": config.data.on_bad_image}
            features = [old.describe(images, f"{target}, old", options, **loading).features for images in sides]
            torch.save(features, unfinished := path.with_suffix(f".{os.getpid()}"))
            unfinished.replace(path)
        found[target] = torch.load(path, weights_only=True)
    return found


def compared(new, old, rule, options):
    """Scores of new (query, gallery) descriptors; the two self tests alone if dimensions differ without a rule."""
    old = [dataclasses.replace(side, features=features) for side, features in zip(new, old, strict=True)]
    if new[0].features.shape[1] != old[0].features.shape[1] and rule == "error":
        cosine, tests = dataclasses.replace(options, metric="cosine"), {"self_test": new, "old_test": old}
        return {name: Score.of(rank(*sides, cosine)).as_dict() for name, sides in tests.items()}
    result = compare({"old": old, "new": new}, options, dimensions=rule).updates[0].result
    print(result)
    return result.as_dict()


def table(folder):
    """Mean and spread of each method, in Markdown."""
    read = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    found = {}
    for made in sorted((run for run in read if "variant" in run), key=lambda run: run["seed"]):
        for target, result in made["results"].items():
            found.setdefault((made["setting"], target), {}).setdefault(made["variant"], {})[made["seed"]] = result
    if not found:
        raise FileNotFoundError(f"{folder} holds no results; make some with: run ... --out {folder}")
    return "\n".join(section(*name, variants) for name, variants in sorted(found.items()))


def section(setting, target, variants):
    """The table of a setting and a target; ``variants`` holds results by variant and seed."""
    old, *others = (run["old_test"] for runs in variants.values() for run in runs.values())
    if any(other != old for other in others):
        raise ValueError(f"The runs of {setting} have different old models; give each old model a folder")
    rows = [["method", "seeds", *COLUMNS, "compatible"]]
    for variant, runs in sorted(variants.items(), key=lambda each: (each[0] != INDEPENDENT, each[0])):
        method, *own = variant.split("@")
        same_network = "@".join([INDEPENDENT, *sorted(each for each in own if each.startswith("model."))])
        values = [figures(run, variants.get(same_network, {}).get(seed)) for seed, run in runs.items()]
        cells = [cell([each.get(column, math.nan) for each in values]) for column in COLUMNS]
        yes = f"{sum(run.get('compatible', False) for run in runs.values())} of {len(runs)}"
        rows.append([f"{method} ({', '.join(own)})" if own else method, ", ".join(map(str, runs)), *cells, yes])
    scores = f"old test mAP {cut(100 * old['mAP'])}, CMC-1 {cut(100 * old['cmc1'])}"
    return f"{setting}, {target}: {scores}\n\n{as_markdown(rows)}"


def figures(run, independent):
    """What was measured in a run, by column."""
    own = {"self mAP": 100 * run["self_test"]["mAP"], "self CMC-1": 100 * run["self_test"]["cmc1"]}
    if "cross_test" not in run:
        return own
    cross, old = Score(**run["cross_test"]), Score(**run["old_test"])
    return own | {
        "cross mAP": 100 * cross.mAP,
        "cross CMC-1": 100 * cross.cmc1,
        "gain (mAP)": update_gain(cross, old, independent and Score(**independent["self_test"])).mAP,
        "negative flips": 100 * run["backfill"][0]["negative_flips"],
        "area (mAP)": 100 * run["backfill_area"]["mAP"],
    }


def cell(values):
    """Mean, and in brackets the standard deviation of several; empty if one was not measured."""
    if any(map(math.isnan, values)):
        return ""
    found = spread(values)
    return cut(found["mean"]) + (f" ({cut(found['std'])})" if len(values) > 1 else "")


def cut(value):
    """Two decimals, rounded down, below zero too."""
    return f"{math.floor(100 * value + 1e-9) / 100:.2f}"


def read(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("run", help="train and compare; KEY VALUE pairs are settings of all runs")
    make.add_argument("--setting", required=True, metavar="NAME", help="of configs/compat/")
    make.add_argument("--methods", nargs="+", required=True, metavar="METHOD[@KEY=VALUE]")
    make.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    make.add_argument("--out", required=True, help="folder of the results")
    make.add_argument("--root", default="", help="folder that holds the data sets")
    make.set_defaults(work=run)
    show = commands.add_parser("table", help="mean and spread of the runs of a folder")
    show.add_argument("folder")
    show.set_defaults(work=lambda arguments: print(table(arguments.folder)))
    return parse(parser, arguments)


if __name__ == "__main__":
    given = read()
    sys.exit(report_user_errors(lambda: given.work(given)))
