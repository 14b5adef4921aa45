"""Work that was killed and is resumed leaves the files and the scores of work that ran through."""

import io
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from kills import KilledError, files_of, killed
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from torchreid_ptl.cli.main import main
from torchreid_ptl.engines import ImagePTLEngine
from torchreid_ptl.runtime import owners

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = "drawn_pedestrians_tiny"
SMALL = [
    "data.height", "64", "data.width", "32", "data.workers", "0", "train.batch_size", "8", "train.max_epoch", "2",
    "model.name", "osnet_x0_25", "model.pretrained", "False", "test.ranks", "[1]", "use_gpu", "False",
]  # fmt: skip
_DRAWN = io.BytesIO()
Image.new("L", (1, 1)).save(_DRAWN, "PNG")
PIXEL = _DRAWN.getvalue()
CHAIN = f"chain: [{TINY}, {{name: second, data: {{sources: [{TINY}]}}, train: {{max_epoch: 1}}}}]\n"


@pytest.fixture(scope="module", autouse=True)
def _one_thread_and_empty_pictures():
    """Pictures take most of the time of a small run, and only their files count here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "print_png", lambda _, file, **__: file.write(PIXEL))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def old(tmp_path_factory, tiny_root):
    """Weights of an old model."""
    folder = tmp_path_factory.mktemp("old")
    assert main(run(folder / "log", tiny_root, "train.max_epoch", "1", "test.visrank", "False")) == 0
    return folder / "log" / "model" / "model.pth.tar-1"


def data(root):
    return ["--root", str(root), "-t", TINY]


def run(folder, root, *more):
    return ["train", *data(root), "-s", TINY, *SMALL, "data.save_dir", str(folder), *more]


def chain(folder, root, *more):
    (folder.parent / "chain.yaml").write_text(CHAIN)
    given = ["--config-file", str(folder.parent / "chain.yaml"), *data(root), *SMALL, "data.save_dir", str(folder)]
    return ["train", *given, *more]


def sweep(folder, root, *more):
    return ["sweep", "--seeds", "1", "2", *run(folder, root, *more)[1:]]


def compatible(folder, root, *more, old):
    method = str(CONFIGS / "compat" / "methods" / "rbcl.yaml")
    given = [
        "--config-file",
        method,
        "compat.old",
        "osnet_x0_25",
        "compat.old_weights",
        str(old),
        "train.max_epoch",
        "1",
    ]
    return run(folder, root, *given, "compat.bank", str(folder / "bank.npy"), *more)


def comparison(folder, root, *more, old):
    version = ["--version", "osnet_x0_25", str(old)]
    sizes = ["data.height", "64", "data.width", "32", "data.workers", "0"]
    return ["compatibility", *data(root), *version, *version, *sizes, "data.save_dir", str(folder)]


EVERY = {"run": 10, "chain": 40, "sweep": 40, "compatible": 30, "comparison": 12}
"""One operation of so many, for the time; 1 tries each."""
KINDS = {"run": run, "chain": chain, "sweep": sweep, "compatible": compatible, "comparison": comparison}


@pytest.fixture
def command(request, tmp_path, tiny_root):
    """Builds the command of a kind, for a folder."""

    def build(kind, folder, *more):
        with_old = {"old": request.getfixturevalue("old")} if kind in ("compatible", "comparison") else {}
        return KINDS[kind](folder, tiny_root, *more, **with_old)

    return build


def scores(folder):
    """The scores in all results below a folder; times and folders differ."""
    found = {}
    for path in sorted(folder.rglob("results.json")):
        if not any(part.startswith("earlier-") for part in path.parts):
            content = json.loads(path.read_text())
            key = "targets" if "targets" in content else "stages"
            part = content[key]
            found[str(path.relative_to(folder))] = [row["targets"] for row in part] if key == "stages" else part
    return found


def kill(arguments, folder, before):
    """Whether the command was killed; False when it ended before."""
    with killed(folder, before):
        try:
            assert main(arguments) == 0
        except KilledError:
            owners._BEGAN = time.time()  # what goes on is another process
            return True
    return False


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        ("run", "report.html"),
        pytest.param("compatible", "matrix_drawn_pedestrians_tiny.csv", marks=pytest.mark.slow),
        pytest.param("chain", "results.json", marks=pytest.mark.slow),
    ],
)
def test_what_was_killed_while_it_wrote_is_written_without_training_again(command, tmp_path, monkeypatch, kind, before):
    whole, folder = tmp_path / "whole", tmp_path / "log"
    assert main(command(kind, whole, "test.visrank", "False")) == 0
    assert kill(command(kind, folder, "test.visrank", "False"), folder, before)
    assert not (folder / "results.json").exists()
    first = list(folder.glob("**/model.pth.tar-*"))
    train = ImagePTLEngine.train

    def known(self, *given, **options):
        assert not any(path.is_relative_to(self.save_dir) for path in first), "trained again"
        train(self, *given, **options)

    monkeypatch.setattr(ImagePTLEngine, "train", known)
    assert main(command(kind, folder, "test.visrank", "False", "--resume")) == 0
    assert files_of(folder) == files_of(whole)
    assert scores(folder) == scores(whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_kill_before_each_file_operation(command, tmp_path, kind):
    whole = tmp_path / "whole"
    with killed(whole) as operations:
        assert main(command(kind, whole)) == 0
    expected = files_of(whole), scores(whole)
    assert len(operations) > 20
    for number in range(0, len(operations), EVERY[kind]):
        folder = tmp_path / "log"
        assert kill(command(kind, folder), folder, number), operations[number]
        again = () if kind == "comparison" else ("--resume",)
        assert main(command(kind, folder, *again)) == 0, operations[number]
        assert (files_of(folder), scores(folder)) == expected, (number, operations[number])
        shutil.rmtree(folder)
