"""Files of descriptors: written by one program, evaluated by another, a large gallery in several files."""

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..runtime.checkpoint import foreign_object
from ..runtime.files import replace_file
from ..runtime.hints import hint
from ..runtime.weights import is_odd

KEYS = ("features", "pids", "camids")
SUFFIXES = (".npz", ".pt")


class FeatureFileError(ValueError):
    """A file of descriptors that cannot be used."""


class FeatureFile:
    """Descriptors of images with identities and cameras, of which the large part is read when it is needed.

    A ``.npz`` file of numpy, or a ``.pt`` file of torch with a dictionary, holds ``features`` (N, D), ``pids`` (N,),
    ``camids`` (N,) and, if wanted, ``paths`` (N,), the images' files. Nothing else is executed or imported in reading.

    Args:
        path: the file.

    Attributes:
        shape: (N, D).
        pids: identities, shape (N,).
        camids: cameras, shape (N,).
        paths: the images' files; empty when the file does not name them.

    Raises:
        FileNotFoundError: there is no such file.
        FeatureFileError: it cannot be read or does not hold what it should; says what it holds.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no file of features {self.path}")
        if self.path.suffix.lower() not in SUFFIXES:
            raise FeatureFileError(f"{self.path} must be a file of one of the kinds {', '.join(SUFFIXES)}")
        content = self._open(only_labels=True)
        for key in KEYS:
            if key not in content:
                raise FeatureFileError(
                    f"{self.path} has no {key!r}: {hint(key, list(map(str, content)))}. A file of features holds "
                    "features (N, D), pids (N,), camids (N,) and, if wanted, paths (N,)"
                )
        features = content["features"]
        if not hasattr(features, "dtype"):
            raise FeatureFileError(f"{self.path}: features must be an array or a tensor, got {type(features).__name__}")
        if len(features.shape) != 2 or not all(features.shape):
            raise FeatureFileError(f"{self.path}: features must be (images, dimensions), got {tuple(features.shape)}")
        if not _is_real(features.dtype):
            raise FeatureFileError(f"{self.path}: features must be real numbers, got {features.dtype}")
        if isinstance(features, torch.Tensor) and is_odd(features):
            kind = "without values" if features.is_meta else str(features.layout)
            raise FeatureFileError(f"{self.path}: features must be a dense tensor (to_dense()), got one {kind}")
        self.shape = (int(features.shape[0]), int(features.shape[1]))
        self.pids, self.camids = (self._labels(key, content[key]) for key in KEYS[1:])
        self.paths = self._names(content.get("paths", ()))
        if self.paths and len(self.paths) != self.shape[0]:
            raise FeatureFileError(f"{self.path}: {len(self.paths)} paths for {self.shape[0]} features")

    def read(self) -> Any:
        """The descriptors, a numpy array or a tensor of any real dtype; a ``.pt`` file is mapped, not loaded."""
        return self._open()["features"]

    def _open(self, only_labels: bool = False) -> Mapping[str, Any]:
        """The file's content; with ``only_labels`` the features of a ``.npz`` file are not read."""
        try:
            if self.path.suffix.lower() == ".npz":
                return _open_npz(self.path, only_labels)
            mapped = zipfile.is_zipfile(self.path)  # torch's format before 1.6 can only be loaded
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            raise FeatureFileError(
                f"{self.path} is no file of torch, or holds more than tensors, numbers and names: "
                f"{foreign_object(error)}. Write features, pids and camids as tensors (torch.as_tensor) and paths as a "
                "list of str"
            ) from error
        except Exception as error:  # a damaged file can trip the reader in any way
            raise FeatureFileError(
                f"{self.path} cannot be read as a file of features: {str(error) or type(error).__name__}"
            ) from error
        if not isinstance(content, Mapping):
            raise FeatureFileError(f"{self.path} holds {type(content).__name__}; a dictionary was expected")
        return content

    def _labels(self, key: str, labels: Any) -> npt.NDArray[np.int64]:
        array = self._array(key, labels)
        if array.shape != self.shape[:1] or array.dtype.kind not in "iu":
            raise FeatureFileError(
                f"{self.path}: {key} must be {self.shape[0]} whole numbers, one for each row of features, got shape "
                f"{array.shape} of {array.dtype}"
            )
        if array.max() > np.iinfo(np.int64).max:
            raise FeatureFileError(f"{self.path}: {key} must be below 2^63, got {array.max()}")
        return array.astype(np.int64)

    def _names(self, paths: Any) -> list[str]:
        array = self._array("paths", paths)
        if array.ndim != 1 or array.size and array.dtype.kind not in "US":
            raise FeatureFileError(
                f"{self.path}: paths must be one name for each row of features, got shape {array.shape} of "
                f"{array.dtype}"
            )
        return [path.decode() if isinstance(path, bytes) else path for path in array.tolist()]

    def _array(self, key: str, values: Any) -> npt.NDArray[Any]:
        try:
            return np.asarray(values.detach() if isinstance(values, torch.Tensor) else values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise FeatureFileError(f"{self.path}: {key} is no array: {error}") from error


class FeatureFiles:
    """Several files one after another as if they were one; a piece of at most one is held at a time.

    Args:
        paths: the files.

    Attributes:
        shape: (N, D).

    Raises:
        FileNotFoundError: a file is missing.
        FeatureFileError: a file cannot be used, or dimensions differ between them.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        if not paths:
            raise FeatureFileError("No file of features was given")
        places = [Path(path).resolve() for path in paths]
        twice = [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]
        if twice:
            raise FeatureFileError(f"{twice[0]} is given twice, and its images would count twice; give each file once")
        self._files = [FeatureFile(path) for path in paths]
        dims = {file.shape[1]: file.path for file in self._files}
        if len(dims) > 1:
            named = ", ".join(f"{path} has {dim}" for dim, path in dims.items())
            raise FeatureFileError(f"All files must have features of one dimension: {named}")
        self._ends = np.cumsum([file.shape[0] for file in self._files])
        self.shape = (int(self._ends[-1]), self._files[0].shape[1])
        self.pids = np.concatenate([file.pids for file in self._files])
        self.camids = np.concatenate([file.camids for file in self._files])
        self.paths = [path for file in self._files for path in file.paths]
        if len(self.paths) not in (0, self.shape[0]):
            raise FeatureFileError(f"Some files name their images and some do not; got {len(self.paths)} paths in all")
        self._held: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> torch.Tensor:
        """Some rows in float32."""
        start, stop, _ = rows.indices(self.shape[0])
        parts = []
        for index, end in enumerate(self._ends.tolist()):
            first = end - self._files[index].shape[0]
            if start < end and stop > first:
                part = self._piece(index)[max(start, first) - first : min(stop, end) - first]
                parts.append(_floats(part))
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def _piece(self, index: int) -> Any:
        if self._held[0] != index:
            self._held = (-1, None)  # let go of one before the next is read
            self._held = (index, self._files[index].read())
        return self._held[1]


def _is_real(dtype: Any) -> bool:
    if isinstance(dtype, torch.dtype):
        return not dtype.is_complex and dtype != torch.bool and not str(dtype).startswith("torch.q")
    return dtype.kind in "fiu"


def _open_npz(path: Path, only_labels: bool) -> dict[str, Any]:
    """The file's content; with ``only_labels`` the shape and dtype of the features in their place."""
    with open(path, "rb") as opened:
        start = opened.read(6)
    if not start.startswith((b"PK", b"\x93NUMPY")):
        raise ValueError(f"it begins with {start!r} and is no archive; write it with numpy.savez")
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array without names; write it with numpy.savez")
    with loaded as file:
        content: dict[str, Any] = dict.fromkeys(file.files)
        for key in {*KEYS, "paths"} & content.keys():
            content[key] = _header(file) if key == "features" and only_labels else _member(file, key)
    return content


def _member(file: Any, key: str) -> Any:
    try:
        return file[key]
    except ValueError as error:
        raise ValueError(f"{key}: {error}. Write it as an array of numbers, or of str for paths") from error


def _header(file: Any) -> SimpleNamespace:
    with file.zip.open("features.npy") as member:
        first = np.lib.format.read_magic(member) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return SimpleNamespace(shape=shape, dtype=dtype)


def _floats(part: Any) -> torch.Tensor:
    """Rows of an array, of any byte order, or of a tensor in float32."""
    if isinstance(part, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))
    return part.detach().to(torch.float32)


def save_features(
    path: str | Path,
    features: Any,
    pids: Sequence[int] | npt.NDArray[Any],
    camids: Sequence[int] | npt.NDArray[Any],
    paths: Sequence[str] = (),
) -> None:
    """Writes a file that :class:`FeatureFile` reads; it appears complete or not at all.

    Args:
        path: ends in ``.npz`` or ``.pt``.
        features: array or tensor, shape (N, D).
        pids: identities, shape (N,).
        camids: cameras, shape (N,).
        paths: the images' files, shape (N,); or nothing.

    Raises:
        FeatureFileError: another ending, or lengths that differ.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise FeatureFileError(f"{target} must end in one of {', '.join(SUFFIXES)}")
    lengths = {"features": len(features), "pids": len(pids), "camids": len(camids), "paths": len(paths)}
    if len({length for key, length in lengths.items() if key != "paths" or length}) != 1:
        raise FeatureFileError(f"Features, pids, camids and paths must be of one length, got {lengths}")
    tensor = torch.as_tensor(features).detach().cpu().contiguous()
    if tensor.untyped_storage().nbytes() > tensor.nbytes:  # a view, whose file would hold all that it is a part of
        tensor = tensor.clone()
    written = io.BytesIO()
    if target.suffix.lower() == ".npz":
        arrays: dict[str, Any] = {"features": tensor.numpy(), "pids": np.asarray(pids), "camids": np.asarray(camids)}
        if len(paths):
            arrays["paths"] = np.asarray(paths)
        np.savez(written, **arrays)
    else:
        labels = {"pids": torch.as_tensor(np.asarray(pids)), "camids": torch.as_tensor(np.asarray(camids))}
        torch.save({"features": tensor, **labels, "paths": list(paths)}, written)
    replace_file(target, written.getbuffer())
