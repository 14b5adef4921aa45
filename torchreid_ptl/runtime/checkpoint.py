"""Checkpoint files: written completely or not at all, read without running code in them."""

import errno
import io
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from .. import host
from .errors import WordedError
from .files import free_space, replace_file
from .kinds import wrong_entries

PREFIX = "model.pth.tar-"
BEST = "model-best.pth.tar"
_OTHER_KINDS = {
    b"<": "a web page, which was saved in place of the file behind it. Download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS. Fetch the file it stands for: git lfs pull",
    b"\x1f\x8b": "compressed by gzip. Unpack it and give the file in it",
    b"7z\xbc\xaf": "a 7z archive. Unpack it and give the file in it",
    b"rar!": "a rar archive. Unpack it and give the file in it",
    b"\x93numpy": "an array of numpy. A checkpoint is a dictionary of tensors, written by torch.save",
    b"\x89hdf": "a file of HDF5, as Keras writes it. A checkpoint is a dictionary of tensors, written by torch.save",
}
"""Files that are taken for weights, by their first bytes in lower case."""


class CheckpointError(WordedError, ValueError):
    """A checkpoint cannot be used; the message says why."""


class TornCheckpointError(CheckpointError):
    """A checkpoint is incomplete or damaged."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds objects other than tensors and plain values."""


def save_checkpoint(state: dict[str, Any], path: str | Path) -> None:
    """Writes ``state``, of tensors, numbers, strings and containers of these, as :func:`replace_file` does.

    Raises:
        OSError: the disk is full or not writable; the message names the file, its size and the free space. What
            was at ``path`` before is untouched.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        replace_file(path, buffer.getbuffer())
    except OSError as error:
        size = buffer.getbuffer().nbytes / 2**20
        raise OSError(
            error.errno,
            f"Could not write the checkpoint {path} ({size:,.1f} MiB; {free_space(path)}): "
            f"{os.strerror(error.errno or 0)}. Earlier checkpoints are untouched; continue from them with model.resume "
            "auto",
        ) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of this package, of a torchreid engine, or a plain state dict, to the CPU.

    Only tensors, plain values and numpy numbers are read; nothing a file names is executed.

    Raises:
        FileNotFoundError: no such file.
        TornCheckpointError: truncated or damaged.
        UnsafeCheckpointError: other objects inside.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}{': it is a folder' if path.is_dir() else ''}")
    _check_whole(path)
    try:
        with host.numpy_scalars_allowed():
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # anything else that is refused is refused for what it holds
        if any(sign in str(error) for sign in ("truncated", "Ran out of input", "EOF", "magic number")):
            raise TornCheckpointError(f"{path} is incomplete or damaged") from error
        raise UnsafeCheckpointError(
            f"{path} holds {foreign_object(error)} beside tensors and plain values and is not read, because reading it "
            "could run foreign code. Save the state dict alone and load that."
        ) from error
    except Exception as error:  # a damaged file can trip the reader in any way
        raise TornCheckpointError(f"{path} is incomplete, damaged or no checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}; a checkpoint is a dictionary")
    return state


def load_run(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint to continue a run from; see :func:`load_checkpoint`.

    Raises:
        CheckpointError: as there, or entries of another kind than a run writes; names them.
    """
    state = load_checkpoint(path)
    wrong = wrong_entries(state)
    if wrong:
        raise CheckpointError(
            f"{path} cannot be continued: {'; '.join(wrong)}. Continue from an older checkpoint in its folder"
        )
    return state


def foreign_object(error: pickle.UnpicklingError) -> str:
    """What ``torch.load(weights_only=True)`` refused, in words."""
    named = re.search(
        r"(?:Unsupported (?:global|class)|Trying to load unsupported GLOBAL):? (?:GLOBAL )?([\w.]+)", str(error)
    )
    return f"an object of {named[1]}" if named else "something"


def newest_checkpoint(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The sound checkpoint of the latest epoch in a folder and its content; torn and odd ones are named and skipped.

    The best one serves when there is no other and it holds a run.
    """
    for path in reversed(checkpoints(folder)):
        try:
            state = load_run(path)
        except CheckpointError as error:
            print(f"Ignoring {error}")
            continue
        if path.name != BEST or not lacking(state):
            return path, state
    return None


def lacking(state: Mapping[str, Any]) -> list[str]:
    """What a checkpoint lacks to go on from it."""
    return [key for key in ("state_dict", "optimizer", "epoch") if key not in state]


def checkpoints(folder: str | Path) -> list[Path]:
    """All checkpoints in a folder: the best one, then those of single epochs, oldest first."""
    best = Path(folder) / BEST
    return [*([best] if best.is_file() else []), *epoch_checkpoints(folder)]


def epoch_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of single epochs in a folder, oldest first."""
    numbered = [(int(m[1]), p) for p in Path(folder).glob(PREFIX + "*") if (m := re.search(r"-(\d+)$", p.name))]
    return [path for _, path in sorted(numbered)]


def prune_checkpoints(folder: str | Path, keep: int) -> None:
    """Deletes all but the last ``keep`` checkpoints of single epochs.

    The best checkpoint is a file of its own and stays; so do files of other programs, such as torchreid's own engines.
    """
    for path in epoch_checkpoints(folder)[:-keep]:
        if is_own(path):
            path.unlink()


def is_own(path: Path) -> bool:
    """Whether a checkpoint was written by :func:`save_checkpoint` for a run: it holds random states."""
    try:
        with zipfile.ZipFile(path) as archive:
            listed = next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
            return b"random_state" in archive.read(listed)
    except (OSError, zipfile.BadZipFile, StopIteration):
        return False


class Size(io.RawIOBase):
    """A file that only counts what is written.

    Attributes:
        total: bytes so far.
    """

    total = 0

    def write(self, content: Any) -> int:
        """Counts."""
        self.total += (size := memoryview(content).nbytes)
        return size


def check_room(folder: str | Path, state: dict[str, Any], copies: int, going_on: bool = False) -> None:
    """Makes sure a disk can take as many checkpoints (``copies``) as there are at once at the peak of a run.

    Args:
        folder: of the checkpoints.
        state: the content of a checkpoint.
        copies: how many there will be, with the one that is being written.
        going_on: those in the folder are some of them.

    Raises:
        OSError: with the space needed and the space free.
    """
    size = Size()
    torch.save(state, cast(IO[bytes], size))
    needed = copies * size.total - (_taken(Path(folder)) if going_on else 0)
    there = next(parent for parent in (Path(folder).absolute(), *Path(folder).absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{copies} checkpoints of {size.total / 2**20:,.1f} MiB, with optimiser and random states, need "
            f"{needed / 2**20:,.1f} MiB and {there} has {free / 2**20:,.1f} MiB free. Free some space, "
            "lower keep_last, or choose another save_dir",
        )


def _taken(folder: Path) -> int:
    """Bytes of the checkpoints in a folder; a file with two names counts once."""
    return sum({(facts := path.stat()).st_ino: facts.st_size for path in checkpoints(folder)}.values())


def _check_whole(path: Path) -> None:
    """Names files of other kinds, and compares the check sums of a zip archive, which torch does not."""
    if path.stat().st_size == 0:
        raise TornCheckpointError(f"{path} is empty")
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            head = file.read(512)
        if head[:2] in (b"P", b"PK"):
            raise TornCheckpointError(f"{path} is incomplete or damaged: the end of the archive is missing")
        _require_no_other_kind(path, head)
        return
    with zipfile.ZipFile(path) as archive:
        _require_archive_of_torch(path, {name.partition("/")[2] or name for name in archive.namelist()})
        try:
            bad = archive.testzip()
        except Exception as error:  # a damaged archive can trip the reader in any way
            raise TornCheckpointError(f"{path} is incomplete or damaged: {error}") from error
    if bad is not None:
        raise TornCheckpointError(f"{path} is damaged: the check sum of {bad} does not fit")


def _require_no_other_kind(path: Path, head: bytes) -> None:
    kind = next((kind for start, kind in _OTHER_KINDS.items() if head.lstrip().lower().startswith(start)), "")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        kind = (
            "a file of safetensors. Convert it: torch.save(safetensors.torch.load_file('weights.safetensors'), "
            "'weights.pth')"
        )
    elif head[257:262] == b"ustar":
        kind = "a tar archive. Unpack it and give the file in it"
    elif not kind and not head.startswith(b"\x80"):  # what torch has written is a zip archive or begins so
        raise TornCheckpointError(
            f"{path} is damaged or no checkpoint of torch: it begins with {head[:12]!r}. A checkpoint is a dictionary "
            "of tensors, written by torch.save"
        )
    if kind:
        raise CheckpointError(f"{path} is {kind}")


def _require_archive_of_torch(path: Path, members: set[str]) -> None:
    """What ``torch.save`` writes has a member ``data.pkl``, without the code and constants of TorchScript."""
    if "constants.pkl" in members or any(name.startswith("code/") for name in members):
        raise CheckpointError(
            f"{path} is a TorchScript archive, a network with its code, which is not run. Save its state dict where "
            "you trust it: torch.save(torch.jit.load('network.pt').state_dict(), 'weights.pth')"
        )
    if "data.pkl" not in members:
        raise CheckpointError(
            f"{path} is a zip archive of {', '.join(sorted(members)[:3]) or 'nothing'}, not one of torch.save. Unpack "
            "it and give the file of weights in it"
        )
