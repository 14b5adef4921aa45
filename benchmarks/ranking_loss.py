"""What the ranking loss costs against a bank of Market-1501's size, forward and backward.

    python benchmarks/ranking_loss.py
    python benchmarks/ranking_loss.py --gallery 30248 --dim 2048 --threads 2

The sides take turns, so that other work on the machine meets all of them. "bare product" is the product of the batch
with the bank and its gradient, which no ranking can do without; "naive" holds tensors of queries x positives x gallery.
Memory is what the first call adds, in a process of its own.
"""

import argparse
import functools
import json
import statistics
import time

import torch
import torch.nn.functional as F
from measure import in_own_process, machine, measured

from torchreid_ptl.losses import rbcl_loss

PER_PERSON = 17
SIDES = ("bare product", "none", "lift", "restore", "naive")


def bank(gallery, dim, batch):
    """A batch of four images for each identity and old features near them; each image stands in the bank too."""
    torch.manual_seed(0)
    gallery_pids = torch.arange(gallery) // PER_PERSON
    old = torch.randn(gallery, dim)
    pids = torch.arange(batch) // 4 * 3
    rows = pids * PER_PERSON + torch.arange(batch) % 4
    new = (old[rows] + torch.randn(batch, dim)).requires_grad_()
    return new, old, pids, gallery_pids, rows


def bare(new, old):
    """The product and its gradient."""
    product = F.normalize(new, dim=1) @ old.T
    product.backward(product.detach())


def naive(new, old, pids, gallery_pids, rows, tau=0.01):
    """All triples of one formula at once, by autograd."""
    s = F.normalize(new, dim=1) @ F.normalize(old, dim=1).T
    same = pids[:, None] == gallery_pids
    positive = same & (torch.arange(len(old)) != rows[:, None])
    columns = positive.nonzero()[:, 1].view(len(new), -1)
    beats = torch.sigmoid((s[:, None, :] - s.gather(1, columns)[:, :, None]) / tau)
    among = 0.5 + (beats * positive[:, None, :]).sum(dim=2)
    before = (beats * ~same[:, None, :]).sum(dim=2)
    (1 - (among / (among + before)).mean()).backward()


def call(side, new, old, pids, gallery_pids, rows):
    """Forward and backward of one side."""
    if side == "bare product":
        bare(new, old)
    elif side == "naive":
        naive(new, old, pids, gallery_pids, rows)
    else:
        rbcl_loss(new, old, pids, gallery_pids, dgr=side, same_image=rows).backward()


def held(side, sizes):
    """MiB that one call adds."""
    small, given = bank(200, 8, 4), bank(**sizes)
    return measured(lambda: call(side, *given), repeats=1, warm=lambda: call(side, *small))["extra_mib"]


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=12936)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.side:
        print(json.dumps({"held": held(**json.loads(asked.side))}))
        return
    sizes = {"gallery": asked.gallery, "dim": asked.dim, "batch": asked.batch}
    given, seconds = bank(**sizes), {side: [] for side in SIDES}
    for number in range(asked.steps + 1):
        for side in SIDES:
            started = time.perf_counter()
            call(side, *given)
            seconds[side] += [time.perf_counter() - started] if number else []  # the first warms up
    memory = functools.partial(in_own_process, __file__, sizes=sizes)
    print(f"{machine()}\n{sizes}, {PER_PERSON} images of each identity\n")
    print(f"| side | median of {asked.steps}, ms | best, ms | x bare product | memory, MiB |\n|---|---|---|---|---|")
    plain = statistics.median(seconds["bare product"])
    for side, taken in seconds.items():
        middle = statistics.median(taken)
        times = f"{1e3 * middle:.1f} | {1e3 * min(taken):.1f} | {middle / plain:.2f}"
        print(f"| {side} | {times} | {memory(side=side)['held']:.0f} |")


if __name__ == "__main__":
    main()
