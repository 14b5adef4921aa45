"""What a training step costs with a teacher, asked in each step or its features computed once.

    python benchmarks/distillation.py
    python benchmarks/distillation.py --student densenet161 --teacher densenet161_ptl --batch 32 --precision float32
    python benchmarks/distillation.py --device cuda

The steps of the three sides take turns, so that other work on the machine meets all of them; ratios are of medians.
"""

import argparse
import statistics
import time

import torch
import torchreid
from measure import machine

import torchreid_ptl  # noqa: F401 - registers the models
from torchreid_ptl.engines import FeatureTable, FrozenModel, Outputs, Preprocessing, SoftmaxObjective, STDObjective
from torchreid_ptl.runtime.precision import autocast


class Side:
    """A student of its own with an objective."""

    def __init__(self, asked, objective, loss):
        model = torchreid.models.build_model(asked.student, 751, loss=loss, pretrained=False)
        self.model = model.to(asked.device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4)
        self.objective, self.loss, self.asked = objective, loss, asked
        self.seconds = []

    def step(self, images, pids, paths):
        """One training step; notes its time."""
        started = time.perf_counter()
        with autocast(self.asked.precision, images.device):
            reference = self.objective.reference(images, {"impath": paths})
            outputs = Outputs.of(self.model(images), self.loss)
        loss = torch.stack(list(self.objective(outputs, pids, reference).values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        loss.item()  # waits for a GPU
        self.seconds.append(time.perf_counter() - started)


def sides(asked):
    """The plain training, with a teacher, and with a table of its features."""
    style = Preprocessing(asked.height, asked.width)
    network = torchreid.models.build_model(asked.teacher, 751, pretrained=False)
    teacher = FrozenModel(network, style, style, asked.device, channels_last=True)
    paths = [str(number) for number in range(asked.batch)]
    table = FeatureTable(paths, torch.rand(asked.batch, teacher.dim))
    return {
        "plain": Side(asked, SoftmaxObjective(), "softmax"),
        "teacher in each step": Side(asked, STDObjective(teacher), "triplet"),
        "features computed once": Side(asked, STDObjective(teacher, table=table), "triplet"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="osnet_x0_25")
    parser.add_argument("--teacher", default="osnet_x0_25_ptl")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(asked.batch, 3, asked.height, asked.width, device=asked.device)
    images = images.to(memory_format=torch.channels_last)
    pids = torch.randint(751, (asked.batch,), device=asked.device)
    paths = [str(number) for number in range(asked.batch)]
    compared = sides(asked)
    for number in range(asked.steps + 2):
        for side in compared.values():
            side.step(images, pids, paths)
            if number < 2:  # what is loaded once
                side.seconds.clear()
    print(f"{machine()}\n{vars(asked)}\n\n| step | median of {asked.steps}, s | x plain |\n|---|---|---|")
    plain = statistics.median(compared["plain"].seconds)
    for name, side in compared.items():
        middle = statistics.median(side.seconds)
        print(f"| {name} | {middle:.3f} | {middle / plain:.2f} |")


if __name__ == "__main__":
    main()
