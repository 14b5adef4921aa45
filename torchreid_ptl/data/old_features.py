"""Old features of training images, by path below the root: computed once, kept on the disk, mapped into memory."""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor

from ..runtime.errors import WordedError
from ..runtime.files import replace_file
from ..runtime.progress import Progress
from .features import FeatureFile

SUFFIX = ".npy"
_KIND = "old features of torchreid_ptl"
_START = json.dumps({"kind": _KIND})[:-1].encode()  # of each list that is written here
_BLOCK = 1 << 24  # bytes that are read at once


class BankError(WordedError, ValueError):
    """A bank of old features cannot be used."""


class OldFeatures:
    """Features (N, D) of images, in float32, with the names of their images.

    Args:
        names: of the images: paths below the root of the data sets, with ``/``.
        features: (N, D), a row for each.
        fingerprint: tells of which model, preprocessing and list of images they are; empty when unknown.

    Attributes:
        names: of the images.
        features: (N, D) float32 on the CPU; a file that is mapped, when it was loaded.
        fingerprint: as given.

    Raises:
        BankError: as many names as rows are needed, each once, and features that are finite; names the images.
    """

    def __init__(self, names: Sequence[str], features: Tensor, fingerprint: str = "") -> None:
        if features.dim() != 2 or len(names) != len(features) or not len(names):
            raise BankError(
                f"A bank holds features (N, D) and N names, at least one; got {tuple(features.shape)} and {len(names)}"
            )
        self.names, self.features, self.fingerprint = list(names), features, fingerprint
        self._row = {name: row for row, name in enumerate(self.names)}
        if len(self._row) < len(self.names):
            twice = next(name for row, name in enumerate(self.names) if self._row[name] != row)
            raise BankError(f"The bank names {twice} twice; an image has one old feature")
        for start in range(0, len(self), 1 << 14):
            bad = torch.nonzero(~features[start : start + (1 << 14)].isfinite().all(dim=1)).flatten().tolist()
            if bad:
                named = ", ".join(self.names[start + row] for row in bad[:3])
                raise BankError(f"Old features of {named} are NaN or infinite; compute them again, or leave them out")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dim(self) -> int:
        """D."""
        return self.features.shape[1]

    def rows(self, names: Iterable[str]) -> Tensor:
        """(M,) the row of each image, -1 for one that the bank does not hold."""
        return torch.tensor([self._row.get(name, -1) for name in names], dtype=torch.long)

    def save(self, path: str | Path) -> None:
        """Writes ``path`` (.npy) and, last, the names and the fingerprint next to it (.json).

        Raises:
            BankError: the .json file is there already and is not one of a bank.
        """
        path = _checked(path)
        require_place(path)
        written = io.BytesIO()
        np.save(written, self.features.numpy())
        replace_file(path, written.getbuffer())
        digest = _digest(path, self.fingerprint, self.names)
        facts = {"kind": _KIND, "fingerprint": self.fingerprint, "digest": digest, "names": self.names}
        replace_file(path.with_suffix(".json"), (json.dumps(facts) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path, fingerprint: str = "", wanted: Sequence[str] = ()) -> "OldFeatures":
        """Opens a bank; its features stay in the file and are read as they are needed.

        The whole file is read once: names and features must be those that were written.

        Args:
            path: the .npy file that :meth:`save` wrote.
            fingerprint: what the bank must be of; anything if empty.
            wanted: the images that it may name, in their order; any if empty. Some may be missing.

        Raises:
            FileNotFoundError: there is no such bank.
            BankError: it is damaged or no bank, or of another model, preprocessing or list of images.
        """
        path = _checked(path)
        listed = path.with_suffix(".json")
        if not path.is_file():
            raise FileNotFoundError(f"There is no bank of old features {path}")
        if not listed.is_file():
            raise BankError(
                f"{path} is no bank of old features, or was not written to its end: {listed.name} is missing. Choose "
                "another file with {bank}, or delete it: the bank is built again"
            )
        try:
            facts = json.loads(listed.read_text("utf-8"))
            names, found, digest = list(map(str, facts["names"])), facts["fingerprint"], facts["digest"]
            features = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BankError(f"{path} is damaged ({error}); delete it and {listed.name}: it is built again") from error
        if digest != _digest(path, found, names) or features.dtype != np.float32:
            raise BankError(
                f"{path} and {listed.name} are not as they were written: features or names were changed, or one file "
                "is of another bank. Delete both: the bank is built again"
            )
        if fingerprint and found != fingerprint:
            raise BankError(
                f"{path} holds features of another old model, preprocessing or list of images (fingerprint {found!r}, "
                f"wanted {fingerprint!r}). Delete it, or choose another file with {{bank}}"
            )
        if wanted:
            _require_names(path, names, wanted)
        return cls(names, torch.from_numpy(features), found)

    @classmethod
    def of_file(cls, path: str | Path, wanted: Sequence[str]) -> "OldFeatures":
        """The bank in a file of features (.npz or .pt), when the old model itself is gone.

        A file's image is one of ``wanted`` when its path ends like it, so that images may have been moved; others are
        left out.

        Args:
            path: of the file, with ``features``, ``pids``, ``camids`` and ``paths``.
            wanted: names of the training images, paths below the root.

        Raises:
            FileNotFoundError: there is no such file.
            FeatureFileError: it cannot be read.
            BankError: it names no images, none that is wanted or one twice, or features are not finite.
        """
        file = FeatureFile(path)
        if not file.paths:
            raise BankError(f"{path} has no 'paths': old features are looked up by the files of their images")
        found = _endings(file.paths, wanted)
        if not found:
            raise BankError(
                f"{path} has none of the {len(wanted)} training images: it names {file.paths[0]!r} for example, and "
                f"{wanted[0]!r} is wanted. Old features must be of the training images, by path below {{root}}"
            )
        features = torch.as_tensor(file.read())[list(found.values())].float()
        digest = hashlib.sha256(features.numpy().tobytes())
        return cls(list(found), features, list_digest(list(found), digest.hexdigest()))


def names_of(paths: Iterable[str], root: str | Path) -> list[str]:
    """Paths below the root of the data sets, with ``/``; those of files elsewhere stay as they are.

    Example:
        >>> names_of(["/data/market1501/a.jpg", "/tmp/b.jpg"], "/data")
        ['market1501/a.jpg', '/tmp/b.jpg']
    """
    base = os.path.abspath(os.path.expanduser(str(root))) + os.sep
    absolute = [os.path.abspath(os.path.expanduser(path)) for path in paths]
    return [PurePath(path.removeprefix(base)).as_posix() for path in absolute]


def list_digest(names: Sequence[str], of: str) -> str:
    """Tells features of one list of images by one model (its fingerprint) from others."""
    return hashlib.sha256("\n".join([of, *names]).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _endings(paths: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """The row of each wanted image whose name is the end of a path."""
    asked = set(wanted)
    depths = sorted({len(PurePath(name).parts) for name in wanted}, reverse=True)
    found: dict[str, int] = {}
    for row, path in enumerate(paths):
        parts = PurePath(path).parts
        for depth in depths:
            name = PurePath(*parts[-depth:]).as_posix() if parts else ""
            if name in asked:
                if name in found:
                    raise BankError(
                        f"The training image {name} is the end of two paths in the file of old features, "
                        f"{paths[found[name]]} and {paths[row]}; leave one of them out: an image has one old feature"
                    )
                found[name] = row
                break
    return found


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != SUFFIX:
        raise BankError(f"A bank of old features is a file *{SUFFIX}; got {path}")
    return path


def require_place(path: str | Path) -> None:
    """Makes sure that a bank can be written without loss of a file that is no bank's, before it is computed.

    Raises:
        BankError: the file of its names (.json) is there and was not written for a bank.
    """
    listed = _checked(path).with_suffix(".json")
    if not os.path.lexists(listed):
        return
    try:
        with open(listed, "rb") as file:
            ours = file.read(len(_START)) == _START
    except OSError:  # a folder, for example
        ours = False
    if not ours:
        raise BankError(
            f"The bank {path} keeps the names of its images in {listed}, which is there already and is no list of a "
            "bank. Choose another file with {bank}, or move that file elsewhere"
        )


def _require_names(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Names are some of those wanted, in their order."""
    rest = iter(wanted)
    strange = next((name for name in names if name not in rest), None)
    if strange is not None:
        raise BankError(
            f"{path} names {strange!r}, which is no training image, or stands elsewhere in their order; wanted are "
            f"{len(wanted)} images, {wanted[0]!r} the first. Delete it, or choose another file with {{bank}}"
        )


def _digest(path: Path, fingerprint: str, names: Sequence[str]) -> str:
    """Of a file with all its bytes, and of what belongs to it."""
    digest = hashlib.blake2b(json.dumps([fingerprint, *names]).encode(), digest_size=16)
    with open(path, "rb") as file:
        blocks = -(-os.fstat(file.fileno()).st_size // _BLOCK)
        read = iter(lambda: file.read(_BLOCK), b"")
        large = blocks > 64  # 1 GiB
        for block in Progress(read, f"checking {path.name}", total=blocks) if large else read:
            digest.update(block)
    return digest.hexdigest()
