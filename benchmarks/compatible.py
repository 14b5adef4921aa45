"""What each loss of backward-compatible training adds to a training step.

    python benchmarks/compatible.py
    python benchmarks/compatible.py --only "rbcl full" lce --whole 0
    python benchmarks/compatible.py --device cuda --rounds 50

The old side has the size of Market-1501 and is made from a seed. Each round makes a plain step, cross-entropy alone,
and then the term of every loss in turn: look-up of the old features, forward, and backward to the descriptor. So other
work on the machine meets all of them. The first --whole rounds make whole steps with each loss too: they are what a
user sees, but their ratio to a plain step is far noisier than the term's. Ratios are of medians, and of the fastest.
Memory is what a call of the term adds to the old side, in a process of its own.
"""

import argparse
import functools
import json
import os
import random
import statistics
import time
from types import SimpleNamespace

import torch
import torchreid
from measure import in_own_process, machine, measured

import torchreid_ptl  # noqa: F401 - registers the models
from torchreid_ptl import losses
from torchreid_ptl.data.old_features import OldFeatures
from torchreid_ptl.engines import CompatibleObjective, OldGallery, Outputs, Preprocessing, SoftmaxObjective

MARKET = {"images": 12936, "identities": 751, "dim": 512}
CAMERAS = 6
LOSSES = {
    "l2": lambda identities, dim: losses.FeatureL2Loss(),
    "bct means": lambda identities, dim: losses.BCTLoss("means"),
    "contrastive": lambda identities, dim: losses.OldNewContrastiveLoss(),
    "ract": lambda identities, dim: losses.RACTLoss(),
    "nccl": lambda identities, dim: losses.NCCLLoss(dim),
    "unibct": lambda identities, dim: losses.UniBCTLoss(),
    "lce": lambda identities, dim: losses.LCELoss(),
    "advbct": lambda identities, dim: losses.AdvBCTLoss(dim),
    "mixbct": lambda identities, dim: losses.MixBCTLoss(identities, dim, scale=30.0, margin=0.3),
    "rbcl batch": lambda identities, dim: losses.RBCLLoss("batch"),
    "rbcl nca": lambda identities, dim: losses.RBCLLoss("nca"),
    "rbcl full": lambda identities, dim: losses.RBCLLoss("full"),
    "rbcl full, lift": lambda identities, dim: losses.RBCLLoss("full", dgr="lift"),
    "rbcl full, restore": lambda identities, dim: losses.RBCLLoss("full", dgr="restore"),
}
BARS = {name: (0.10, 64) if name.startswith("rbcl full") else (0.15, None) for name in LOSSES}


class Made:
    """Old features of made training images, and batches of them."""

    def __init__(self, images, identities, dim, device):
        draw = torch.Generator().manual_seed(0)
        pids = torch.arange(images) * identities // images
        cams = torch.randint(CAMERAS, (images,), generator=draw)
        self.centres = torch.randn(identities, dim, generator=draw)
        self.features = self.centres[pids] + torch.randn(images, dim, generator=draw)
        self.list = [
            (f"/data/market1501/train/{row:05d}.jpg", pid, camera)
            for row, (pid, camera) in enumerate(zip(pids.tolist(), cams.tolist(), strict=True))
        ]
        manager = SimpleNamespace(root="/data", train_loader=SimpleNamespace(dataset=SimpleNamespace(data=self.list)))
        names = [path.removeprefix("/data/") for path, *_ in self.list]
        self.side = OldGallery(OldFeatures(names, self.features), manager, device=device)
        self.device, self.draw = device, draw

    def batch(self, size):
        """Paths, identities and cameras of images drawn at random, and new features near their old ones."""
        rows = torch.randperm(len(self.list), generator=self.draw)[:size]
        paths, pids, cams = zip(*(self.list[row] for row in rows), strict=True)
        near = self.features[rows] + torch.randn(size, self.side.dim, generator=self.draw)
        data = {"impath": paths, "camid": torch.tensor(cams)}
        return data, torch.tensor(pids, device=self.device), near.to(self.device)


class Side:
    """A network of its own that is trained with cross-entropy, and with a loss beside it unless that is None."""

    def __init__(self, network, loss, made, style, alone=False):
        model = "softmax" if loss is None else "triplet"
        identities = made.side.num_classes
        built = torchreid.models.build_model(network, identities, loss=model, pretrained=False)
        self.model = built.to(made.device, memory_format=torch.channels_last).train()
        self.objective, self.alone, self.loss = SoftmaxObjective(), None, model
        if loss is not None:
            built_loss = LOSSES[loss](identities, made.side.dim)
            base = None if alone or loss == "mixbct" else self.objective  # MixBCT stands in place of cross-entropy
            objectives = [CompatibleObjective({"old": built_loss}, made.side, base=each) for each in (base, None)]
            self.objective, self.alone = (objective.to(made.device).train() for objective in objectives)
            self.objective.prepare(self.model, style)
            self.alone.prepare(self.model, style)
            fill_queue(built_loss, made)
        self.parameters = [*self.model.parameters(), *self.objective.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, 1e-4)
        self.wholes, self.terms = [], []

    def step(self, images, data, pids):
        """One training step; notes its time."""
        started = time.perf_counter()
        reference = self.objective.reference(images, data)
        terms = self.objective(Outputs.of(self.model(images), self.loss), pids, reference)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        loss.item()  # waits for a GPU
        self.wholes.append(time.perf_counter() - started)

    def term(self, data, pids, descriptor):
        """The loss by itself, back to a descriptor; notes its time."""
        descriptor = descriptor.clone().requires_grad_()
        self.optimizer.zero_grad(set_to_none=True)
        if descriptor.is_cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        reference = self.alone.reference(descriptor, data)
        (loss,) = self.alone(Outputs((), (descriptor,)), pids, reference).values()
        loss.backward()
        descriptor.grad.sum().item()  # waits for a GPU
        self.terms.append(time.perf_counter() - started)


def fill_queue(loss, made):
    """Fills the queue of a loss that has one, as it is after a while of training."""
    if isinstance(loss, losses.NCCLLoss):
        rows = torch.arange(len(loss.queue)) % len(made.list)
        loss.queue.copy_(torch.nn.functional.normalize(made.side.gallery[rows], dim=1))
        loss.queue_pids.copy_(made.side.gallery_pids[rows])
        loss.seen.fill_(len(rows))


def held(name, network, batch, device):
    """MiB that a call of a term adds, the largest of three."""
    style = Preprocessing(64, 32)
    small, made = Made(60, 12, MARKET["dim"], device), Made(**MARKET, device=device)
    warm, side = (Side(network, name, each, style) for each in (small, made))
    warm.term(*small.batch(4))
    work = functools.partial(side.term, *made.batch(batch))
    if device == "cpu":
        return measured(work, repeats=3)["extra_mib"]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def run(asked):
    """All rounds; the plain side and those with a loss by name."""
    style, made = Preprocessing(asked.height, asked.width), Made(**MARKET, device=asked.device)
    images = torch.randn(asked.batch, 3, asked.height, asked.width, device=asked.device)
    images = images.to(memory_format=torch.channels_last)
    plain = Side(asked.network, None, made, style)
    beside = {name: Side(asked.network, name, made, style) for name in asked.only}
    for number in range(asked.rounds + 1):
        data, pids, near = made.batch(asked.batch)
        stepping = [plain, *(beside.values() if asked.whole and number <= asked.whole else ())]
        random.Random(number).shuffle(stepping)  # what a step costs depends on the memory that the last one left
        for side in stepping:
            side.step(images, data, pids)
        for side in beside.values():
            side.term(data, pids, near)
        if not number:  # what is loaded and computed once
            for side in (plain, *beside.values()):
                side.wholes.clear()
                side.terms.clear()
    return plain, beside


def report(asked, plain, beside):
    """Prints a row for each loss."""
    step = statistics.median(plain.wholes)
    print(f"{machine()}\n{asked.network}, batch {asked.batch} of {asked.height} x {asked.width}; old side {MARKET}")
    print(f"Plain step: median of {asked.rounds} {step:.3f} s, best {min(plain.wholes):.3f} s\n")
    print(
        f"| loss | term, median of {asked.rounds}, ms | / plain step | best / best | bar | full step / plain, medians "
        f"of {asked.whole} | best / best | memory of the term, MiB | bar |\n|---|---|---|---|---|---|---|---|---|"
    )
    sizes = {"network": asked.network, "batch": asked.batch, "device": asked.device}
    first, broken = plain.wholes[: asked.whole], []
    for name, side in beside.items():
        term, (share, most) = statistics.median(side.terms), BARS[name]
        ratios = f"{100 * term / step:.2f} % | {100 * min(side.terms) / min(plain.wholes):.2f} %"
        whole = " | ".join(f"{how(side.wholes) / how(first):.2f}" if first else "" for how in (statistics.median, min))
        memory = in_own_process(__file__, name=name, **sizes)["held"]
        print(f"| {name} | {1e3 * term:.1f} | {ratios} | {100 * share:.0f} % | {whole} | {memory:.1f} | {most or ''} |")
        broken += [name] if term > share * step or memory > (most or memory) else []
    print(f"\nBeyond a bar: {', '.join(broken) or 'none'}")


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="osnet_x0_25", help="with descriptors of 512 dimensions")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--whole", type=int, default=5, help="rounds with whole steps of each loss")
    parser.add_argument("--only", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="LOSS")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(asked.threads)
    if asked.side:
        print(json.dumps({"held": held(**json.loads(asked.side))}))
        return
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)  # where memory is measured: what is freed leaves at once
    report(asked, *run(asked))


if __name__ == "__main__":
    main()
