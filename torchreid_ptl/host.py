"""The one place that knows torchreid's private parts and the defects worked around.

Two distributions exist: PyPI's 0.2.5 keeps everything below ``torchreid.reid`` and offers ``torchreid.models`` and its
siblings as attributes only; upstream's 1.4.0 has them as packages. Everything here goes through the attributes.
"""

import functools
import glob
import hashlib
import importlib
import io
import os
import pickle
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import torchreid

Factory = Callable[..., torch.nn.Module]


class NameConflictError(RuntimeError):
    """A name this package registers already belongs to somebody else."""


class PretrainedFileError(ValueError):
    """A file of ImageNet weights that is not read, or that fits nothing of its model."""


def part(path: str) -> ModuleType:
    """A module of the host below one of its attributes, for example ``part('data.sampler')``."""
    first, _, rest = path.partition(".")
    module: ModuleType = getattr(torchreid, first)
    return importlib.import_module(f"{module.__name__}.{rest}") if rest else module


def version() -> str:
    """Version and distribution of the installed torchreid, for provenance."""
    layout = "PyPI layout" if torchreid.models.__name__.startswith("torchreid.reid") else "upstream layout"
    return f"{getattr(torchreid, '__version__', 'unknown')} ({layout})"


def models() -> dict[str, Factory]:
    """The host's table of model factories, by name."""
    return vars(torchreid.models)["__model_factory"]


def image_datasets() -> dict[str, type]:
    """The host's table of image data sets, by name."""
    return vars(part("data.datasets"))["__image_datasets"]


def video_datasets() -> dict[str, type]:
    """The host's table of video data sets, by name."""
    return vars(part("data.datasets"))["__video_datasets"]


def reader_of(dataset: type) -> str:
    """Name of the host's class whose code reads the folder of a data set; empty where code of somebody else does."""
    readers = {"__init__", "process_dir", "prepare_split", "preprocess_split", "get_data_list"}
    first = next(base for base in dataset.__mro__ if readers & vars(base).keys())
    return first.__name__ if first.__module__.startswith(part("data.datasets.image").__name__) else ""


def is_train_only(name: str) -> bool:
    """Whether a registered image data set has training images only; the host marks its own with ``_train_only``."""
    dataset = image_datasets().get(name)
    return bool(getattr(dataset, "train_only", False) or getattr(dataset, "_train_only", False))


def register_model(name: str, factory: Factory) -> None:
    """Adds a model factory; the same one again is a no-op.

    Raises:
        NameConflictError: the name belongs to a factory of another package.
    """
    _claim("model", name, models().get(name), factory)
    models()[name] = factory


def register_image_dataset(name: str, dataset: type) -> None:
    """Adds an image data set; the same one again is a no-op.

    Raises:
        NameConflictError: the name belongs to a class of another package.
    """
    _claim("data set", name, image_datasets().get(name), dataset)
    image_datasets()[name] = dataset


def register_attribute(room: str, item: Any) -> None:
    """Makes an engine or a loss an attribute, by its ``__name__``, of ``torchreid.engine`` or ``torchreid.losses``.

    Raises:
        NameConflictError: the attribute belongs to another package.
    """
    module = part(room)
    _claim(f"torchreid.{room}", item.__name__, getattr(module, item.__name__, None), item)
    setattr(module, item.__name__, item)


def default_num_classes() -> None:
    """Lets ``build_model(name)`` do without ``num_classes``: one class, for feature extraction."""
    defaults = ("softmax", True, True)  # loss, pretrained, use_gpu: the host's own
    if torchreid.models.build_model.__defaults__ == defaults:
        torchreid.models.build_model.__defaults__ = (1, *defaults)


def training_choices() -> dict[str, list[str]]:
    """Names the host accepts for samplers, optimisers and schedulers."""
    return {
        "sampler": list(part("data.sampler").AVAI_SAMPLERS),
        "optim": list(part("optim.optimizer").AVAI_OPTIMS),
        "lr_scheduler": list(part("optim.lr_scheduler").AVAI_SCH),
    }


def build_train_sampler(*args: Any, **kwargs: Any) -> torch.utils.data.Sampler:
    """The host's sampler builder, which it does not export."""
    return part("data.sampler").build_train_sampler(*args, **kwargs)


@contextmanager
def training_images_optional() -> Iterator[None]:
    """Lets the host build data sets for a test whose training images are missing: its classes ask for some."""
    base = part("data.datasets.dataset").Dataset
    init, check = base.__init__, base.check_before_run

    def check_others(self: Any, required_files: str | list[str]) -> None:
        files = [required_files] if isinstance(required_files, str) else required_files
        check(self, [path for path in files if path != getattr(self, "train_dir", None)])

    def lend(self: Any, train: list[Any], query: list[Any], gallery: list[Any], **options: Any) -> None:
        init(self, train or query[:1], query, gallery, **options)
        if not train:
            self.data = [] if self.data is self.train else self.data
            self.train = []

    with _instead((base, "__init__", lend), (base, "check_before_run", check_others)):
        yield


def preprocessing(datamanager: Any) -> tuple[int, int, tuple[float, ...], tuple[float, ...]]:
    """Height, width, mean and standard deviation of the images a data manager delivers."""
    normalize = next(step for step in datamanager.transform_te.transforms if hasattr(step, "mean"))
    return datamanager.height, datamanager.width, tuple(normalize.mean), tuple(normalize.std)


def augmentations(datamanager: Any) -> list[str]:
    """Names of the steps of a training transform that differ from the test transform's."""
    plain = {type(step) for step in datamanager.transform_te.transforms}
    return [type(step).__name__ for step in datamanager.transform_tr.transforms if type(step) not in plain]


def replace_evaluation(compute_distance_matrix: Any, evaluate_rank: Any, re_ranking: Any) -> None:
    """Puts other functions in the place of those the host's engines evaluate with; the host's own stay as they are."""
    engine = part("engine.engine")
    restore_evaluation()
    _replaced.update(metrics=engine.metrics, re_ranking=engine.re_ranking)
    functions = {"compute_distance_matrix": compute_distance_matrix, "evaluate_rank": evaluate_rank}
    vars(engine).update(metrics=SimpleNamespace(**{**vars(engine.metrics), **functions}), re_ranking=re_ranking)


def restore_evaluation() -> None:
    """Undoes :func:`replace_evaluation`."""
    vars(part("engine.engine")).update(_replaced)
    _replaced.clear()


_replaced: dict[str, Any] = {}


@contextmanager
def identities_apart() -> Iterator[None]:
    """Keeps the people and cameras of data sets apart where torchreid counts them, and those of ``combineall``.

    The host adds the number of people of the first set to the numbers of the second, which are those of the first
    where its numbers have gaps; it counts and prints the people of both as one. With ``combineall`` it numbers people
    of the gallery from the number of training people on, which is the number of one of these where training numbers
    have gaps, and it cannot take a query whose person is not in the gallery.
    """
    base = part("data.datasets.dataset").Dataset
    counted = ((base, f"get_num_{noun}", _count(place)) for noun, place in (("pids", 1), ("cams", 2)))
    with _instead((base, "combine_all", _combine_all), *counted):
        yield


def _count(place: int) -> Callable[[Any, Sequence[Any]], int]:
    """The number of different entries at a place of images (path, identity, camera, data set), by data set."""
    return lambda self, images: len({(image[place], *image[3:]) for image in images})


def _combine_all(self: Any) -> None:
    if self._train_only:
        return
    numbers: dict[tuple[bool, int], int] = {}
    tested = [image for image in (*self.query, *self.gallery) if image[1] not in self._junk_pids]
    self.train = [
        (path, numbers.setdefault((test, pid), len(numbers)), *rest)
        for test, images in ((False, self.train), (True, tested))
        for path, pid, *rest in images
    ]
    self.num_train_pids = len(numbers)


@contextmanager
def folders_read(split_of: Callable[[Any, Callable[[], Any]], Any]) -> Iterator[None]:
    """Lets the host's data sets read their own folder as it is, and write no split into it.

    Market-1501 and DukeMTMC-reID look for identity and camera in the whole path, in which a folder comes first; here
    they look in the name of the file. Five data sets draw splits with whichever seed the first run has, and keep them,
    with absolute paths, in the data folder, which may have moved since or cannot be written to; here
    ``split_of(dataset, draw)`` gives them, where ``draw()`` is the host's drawing, always with the same numbers. The
    splits of CUHK03 are published; their images are taken from the folder of the set, whichever one was written down.
    """
    rooms = {name: part(f"data.datasets.image.{name}") for name in (*_IN_PATHS, *_DRAWN, "cuhk03")}
    places: list[tuple[Any, str, Any]] = [(rooms[name], "re", _IN_NAMES) for name in _IN_PATHS]
    given: dict[str, Any] = {}
    for name in _DRAWN:
        dataset = next(c for c in vars(rooms[name]).values() if isinstance(c, type) and hasattr(c, "prepare_split"))

        def prepare(self: Any, room: ModuleType = rooms[name], drawn: Any = dataset.prepare_split) -> None:
            given[self.split_path] = split_of(self, functools.partial(_draw, room, drawn, self))

        places += [(dataset, "prepare_split", prepare), (rooms[name], "read_json", given.__getitem__)]
    read = functools.partial(_moved_here, rooms["cuhk03"].read_json)
    with _instead(*places, (rooms["cuhk03"], "read_json", read)):
        yield


_IN_PATHS = ("market1501", "dukemtmcreid")
_DRAWN = ("cuhk01", "viper", "ilids", "prid", "grid")
_IN_NAMES = SimpleNamespace(
    compile=lambda pattern: SimpleNamespace(search=lambda path: re.search(pattern, os.path.basename(path)))
)
_SORTED = SimpleNamespace(glob=lambda pattern: sorted(glob.glob(pattern)))


def _draw(room: ModuleType, prepare: Callable[[Any], None], dataset: Any) -> Any:
    """What the host would write into a split file, drawn with a seed that is that of the data set."""
    written: list[Any] = []
    path, states = dataset.split_path, (random.getstate(), np.random.get_state())
    seed = int.from_bytes(hashlib.sha256(room.__name__.rpartition(".")[2].encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    dataset.split_path = ""  # no such file: the host draws
    try:
        with (
            _instead((room, "write_json", lambda splits, _: written.append(splits)), (room, "glob", _SORTED)),
            redirect_stdout(io.StringIO()),
        ):
            prepare(dataset)
    finally:
        dataset.split_path = path
        random.setstate(states[0])
        np.random.set_state(states[1])
    return written[0]


def _moved_here(read: Callable[[str], Any], path: str) -> Any:
    """The splits in a file; images are in the folders beside it."""
    splits = read(path)
    for split in splits:
        for side in ("train", "query", "gallery"):
            split[side] = [
                (os.path.join(os.path.dirname(path), *Path(image).parts[-2:]), *rest) for image, *rest in split[side]
            ]
    return splits


@contextmanager
def _instead(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """Puts something else in the place of attributes for a while: (owner, name, what)."""
    nothing = object()
    before = [(owner, name, vars(owner).get(name, nothing)) for owner, name, _ in places]
    for owner, name, item in places:
        setattr(owner, name, item)
    try:
        yield
    finally:
        for owner, name, item in before:
            if item is nothing:
                delattr(owner, name)
            else:
                setattr(owner, name, item)


def empty_patch_pools(transform: Any) -> None:
    """Empties what the host's random-patch augmentation collected, so that an epoch depends on its seed alone."""
    for step in getattr(transform, "transforms", []):
        if hasattr(step, "patchpool"):
            step.patchpool.clear()


def secure_pretrained_weights() -> None:
    """Lets the host's models read ImageNet weights as tensors alone, and refuse a file that does not fit.

    The host unpickles whatever its cache holds, and leaves a model at random where no entry fits. Again is a no-op.
    """
    modules = {sys.modules[factory.__module__] for factory in models().values()}
    for module in modules:
        if not module.__name__.startswith(f"{torchreid.models.__name__}."):
            continue
        classes = [item for item in vars(module).values() if isinstance(item, type)]
        for place in (module, *classes):
            for name in ("init_pretrained_weights", "load_imagenet_weights"):
                function = vars(place).get(name)
                if function is not None and not hasattr(function, "__wrapped__"):
                    setattr(place, name, _secured(function))


def _secured(initialise: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(initialise)
    def secured(model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        before = {key: value.clone() for key, value in model.state_dict().items() if "classifier" not in key}
        with _tensors_alone():
            initialise(model, *args, **kwargs)
        after = model.state_dict()
        filled = sum(value.numel() for key, value in before.items() if not torch.equal(value, after[key]))
        total = sum(value.numel() for value in before.values())
        if 2 * filled < total:
            raise PretrainedFileError(
                f"it fills {100 * filled / total:.0f} % of the values of {type(model).__name__}; it belongs to another "
                "model"
            )

    return secured


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Lets ``torch.load`` read nothing but tensors and plain values, whatever its caller asks for."""
    load = torch.load

    def load_tensors(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True, "map_location": "cpu"})

    vars(torch)["load"] = load_tensors
    try:
        yield
    except pickle.UnpicklingError as error:
        raise PretrainedFileError(
            "it is damaged, or holds more than tensors and is not read, because reading it could run foreign code"
        ) from error
    finally:
        vars(torch)["load"] = load


def replace_loading_of_extractor(load: Callable[[torch.nn.Module, str], Any]) -> None:
    """Puts another function in the place of that by which the host's ``FeatureExtractor`` loads weights."""
    module = sys.modules[torchreid.utils.FeatureExtractor.__module__]
    vars(module)["load_pretrained_weights"] = load


def pretrained_source(factory: Factory) -> tuple[str, Path] | None:
    """Where a host factory gets its ImageNet weights: (address, file it looks for first); None when unknown."""
    module = sys.modules[factory.__module__]
    name = factory.__name__
    if name in getattr(module, "pretrained_urls", {}):  # the OSNet files keep to a folder of their own
        home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
        return module.pretrained_urls[name], Path(home).expanduser() / "checkpoints" / f"{name}_imagenet.pth"
    plain = name.removesuffix("_fc512")
    dotted = re.sub(r"^shufflenet_v2_x(\d)_(\d)$", r"shufflenetv2_x\1.\2", plain)
    aliases = (plain, plain.split("_ibn_")[0], dotted)
    urls = getattr(module, "model_urls", {})
    settings = getattr(module, "pretrained_settings", {}).get(plain, {})
    url = next((urls[alias] for alias in aliases if alias in urls), settings.get("imagenet", {}).get("url"))
    if not url:
        return None
    return url, Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)


@contextmanager
def numpy_scalars_allowed() -> Iterator[None]:
    """Lets ``torch.load(weights_only=True)`` read the numpy numbers in checkpoints of the host's engines."""
    scalar = importlib.import_module(
        "numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray"
    ).scalar
    kinds = [type(np.dtype(t)) for t in ("f2", "f4", "f8", "i4", "i8", "u4", "u8", "?")]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([*names, np.dtype, *kinds]):
        yield


def _claim(kind: str, name: str, known: Any, ours: Any) -> None:
    if known is None or _origin(known) == _origin(ours):
        return
    raise NameConflictError(
        f"The {kind} {name!r} is already taken by {_origin(known)}; torchreid_ptl's is {_origin(ours)}. "
        "Rename or unregister the other one, or import torchreid_ptl first."
    )


def _origin(item: Any) -> str:
    name = getattr(item, "__qualname__", None) or getattr(item, "__name__", repr(item))
    return f"{getattr(item, '__module__', '?')}.{name}"
