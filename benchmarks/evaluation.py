"""Ranking and re-ranking against the bare matrix product and against torchreid's own evaluation.

    python benchmarks/evaluation.py                  the rows of Market-1501's size, without torchreid's re-ranking
    python benchmarks/evaluation.py --all            everything; about half an hour and 20 GiB on two cores
    python benchmarks/evaluation.py --all --write docs/performance.md

Every side runs in a process of its own. torchreid's Cython evaluator comes with its upstream distribution only, and
only if it has been compiled; without it its rows are left out, and said to be.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torchreid
from measure import in_own_process, machine, measured

from torchreid_ptl.evaluation import Descriptors, evaluate_ranking, rerank

SIZES = {
    # queries, gallery images, dimensions, identities, cameras
    "market": (3368, 15913, 2048, 750, 6),
    "msmt17": (11659, 82161, 2048, 3060, 15),
    "million": (1000, 1_000_000, 512, 5000, 20),
    "tiny": (50, 300, 64, 20, 4),
}


def scene(size, device):
    """Descriptors with structure: identities scatter round centres, a fifth of the gallery are distractors."""
    queries, gallery, dims, people, cameras = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    centres = torch.randn(people, dims, generator=generator)
    query_pids = rng.integers(0, people, queries)
    gallery_pids = np.where(rng.random(gallery) < 0.8, rng.integers(0, people, gallery), people)
    sides = []
    for pids in (query_pids, gallery_pids):
        features = torch.randn(len(pids), dims, generator=generator).mul_(2.5)
        known = torch.from_numpy(np.flatnonzero(pids < people))
        for part in known.split(4096):
            features[part] += centres[torch.from_numpy(pids)[part]]
        sides.append(features.to(device))
    cams = rng.integers(0, cameras, queries), rng.integers(0, cameras, gallery)
    return (*sides, query_pids, gallery_pids, *cams)


def described(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids):
    return Descriptors(query, query_pids, query_camids), Descriptors(gallery, gallery_pids, gallery_camids)


def bare(data):
    query, gallery, *_ = data
    return lambda: query @ gallery.T


def ours(data):
    return lambda: evaluate_ranking(*described(*data))


def ours_ranking_alone(data):
    query, gallery, *labels = data
    distances = torchreid.metrics.compute_distance_matrix(query, gallery)
    return lambda: evaluate_ranking(*described(None, None, *labels), distances=distances)


def host(data, cython):
    query, gallery, *labels = data

    def work():
        distances = torchreid.metrics.compute_distance_matrix(query, gallery).numpy()
        torchreid.metrics.evaluate_rank(distances, *labels, use_cython=cython)

    return work


def host_ranking_alone(data, cython):
    query, gallery, *labels = data
    distances = torchreid.metrics.compute_distance_matrix(query, gallery).numpy()
    return lambda: torchreid.metrics.evaluate_rank(distances, *labels, use_cython=cython)


def ours_reranked(data):
    query, gallery, *labels = data
    return lambda: evaluate_ranking(*described(None, None, *labels), distances=rerank(query, gallery))


def host_reranked(data):
    query, gallery, *labels = data
    compute = torchreid.metrics.compute_distance_matrix

    def work():
        pairs = ((query, gallery), (query, query), (gallery, gallery))
        distances = torchreid.utils.re_ranking(*(compute(a, b).numpy() for a, b in pairs))
        torchreid.metrics.evaluate_rank(distances, *labels)

    return work


SIDES = {
    "bare product": bare,
    "ours": ours,
    "ours, ranking alone": ours_ranking_alone,
    "host, Python": lambda data: host(data, False),
    "host, Cython": lambda data: host(data, True),
    "host, Cython, ranking alone": lambda data: host_ranking_alone(data, True),
    "ours, re-ranked": ours_reranked,
    "host, re-ranked": host_reranked,
}


def run_side(name, size, repeats, device):
    """Prints the measurement of one side."""
    if "Cython" in name and not getattr(torchreid.metrics.rank, "IS_CYTHON_AVAI", False):
        raise SystemExit("torchreid's Cython evaluator is not compiled")
    data = scene(size, device)
    small = SIDES[name](scene("tiny", device))
    print(json.dumps(measured(SIDES[name](data), repeats, small)))


def plan(everything):
    """Which sides are run, at which size, how often."""
    market = [(name, "market", 5) for name in SIDES if "re-ranked" not in name]
    market.append(("ours, re-ranked", "market", 3))
    if not everything:
        return market
    return [
        *market,
        ("host, re-ranked", "market", 1),
        ("bare product", "msmt17", 3),
        ("ours", "msmt17", 3),
        ("bare product", "million", 1),
        ("ours", "million", 3),
        ("ours, re-ranked", "msmt17", 1),
    ]


# Which of our sides does the same as one of the host's.
SAME = {
    "host, Python": "ours",
    "host, Cython": "ours",
    "host, Cython, ranking alone": "ours, ranking alone",
    "host, re-ranked": "ours, re-ranked",
}


def report(results):
    """The measurements as Markdown."""
    lines = [f"Machine: {machine()}.", ""]
    lines += [
        "| size | side | runs | median, s | memory beyond the inputs, MiB (in all) | |",
        "|---|---|---|---|---|---|",
    ]
    for (name, size), (found, repeats) in results.items():
        if found is None:
            lines.append(f"| {size} | {name} | | not run: not to be had here | | |")
            continue
        memory = f"{found['extra_mib']:.0f} ({found['total_mib']:.0f})"
        said = _ratio(results, name, size)
        lines.append(f"| {size} | {name} | {repeats} | {found['seconds']:.3f} | {memory} | {said} |")
    return "\n".join(lines) + "\n"


def _ratio(results, name, size):
    def seconds(side):
        found, _ = results.get((side, size), (None, 0))
        return found and found["seconds"]

    if name == "ours" and seconds("bare product"):
        return f"{seconds(name) / seconds('bare product'):.3f} x the time of the bare product"
    if name in SAME and seconds(SAME[name]):
        return f"{seconds(name) / seconds(SAME[name]):.1f} x the time of {SAME[name]!r}"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="large sizes and torchreid's re-ranking too")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--write", type=Path, help="file whose part after the line '<!-- measured -->' is replaced")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(**json.loads(arguments.side))
        return
    results = {}
    for name, size, repeats in plan(arguments.all):
        if arguments.device != "cpu" and name.startswith("host"):
            continue
        found = in_own_process(__file__, name=name, size=size, repeats=repeats, device=arguments.device)
        results[name, size] = found, repeats
    text = report(results)
    print(text)
    if arguments.write:
        head = arguments.write.read_text().partition("<!-- measured -->")[0]
        arguments.write.write_text(f"{head}<!-- measured -->\n{text}")


if __name__ == "__main__":
    main()
