"""Reading images: an unreadable one is named, or left out and counted; the host's reader never gives up."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

_LOST = re.compile(r"DataLoader worker \(pid|shared memory|torch_shm|ancdata|unable to (mmap|open|write)")
POLICIES = ("error", "skip")
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
"""What a complete file of a format has near its end."""


class BadImageError(OSError):
    """An image file cannot be read.

    A loader's worker hands its errors on with a traceback in front; the message alone is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("BadImageError: ")[2].strip())


def read_image(path: str | Path | IO[bytes]) -> Image.Image:
    """Reads an image as RGB with 8 bits in each channel; transparency is dropped, as the host does.

    Raises:
        FileNotFoundError: no such file.
        BadImageError: empty, truncated, no image, or one of 16 or 32 bits in a channel.
    """
    with _opened(path) as image:
        return image.convert("RGB")


def probe_image(path: str | Path) -> BadImageError | None:
    """What :func:`read_image` would raise, mostly from the header: pixels are read when the end of the file is missing.

    Damage in the middle of a JPEG or PNG file is not found.
    """
    try:
        with _opened(path) as image:
            mark = _ENDS.get(image.format or "", b"")
        if not mark or mark not in _tail(path):
            read_image(path)
    except FileNotFoundError:
        return _missing(path)
    except BadImageError as error:
        return error
    return None


@contextmanager
def _opened(path: str | Path | IO[bytes]) -> Iterator[Image.Image]:
    try:
        if isinstance(path, (str, Path)) and not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is a folder, a pipe or a device")  # to open a pipe would wait for ever
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(
                    f"Pillow's mode {image.mode}: more than 8 bits in a channel, and which values mean black and white "
                    "is not known. Convert the images of the set to 8 bits, all by the same rule"
                )
            yield image
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        raise BadImageError(_unreadable(path, error)) from error


def _missing(path: str | Path) -> BadImageError:
    return BadImageError(_unreadable(path, "no such file, or a link whose target is gone"))


def _unreadable(path: object, reason: object) -> str:
    return f"The image {path} cannot be read ({reason}). Replace or delete it, or set data.on_bad_image skip"


def _tail(path: str | Path, size: int = 64) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read()


class ReadingDataset(Dataset):
    """A data set of the host, read by :func:`read_image`.

    Args:
        dataset: a ``torchreid.data.ImageDataset``.
        on_bad_image: ``'error'`` raises :class:`BadImageError`; ``'skip'`` leaves the image out of its batch and names
            it in the batch's ``bad_images``.

    Raises:
        ValueError: another policy.
    """

    def __init__(self, dataset: Any, on_bad_image: str = "error") -> None:
        if on_bad_image not in POLICIES:
            raise ValueError(f"data.on_bad_image is {on_bad_image!r}; allowed: {', '.join(POLICIES)}")
        self.dataset = dataset
        self.on_bad_image = on_bad_image

    def __len__(self) -> int:
        return len(self.dataset.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns img, pid, camid, impath and dsetid like the host, or the path of a bad image alone."""
        path, pid, camid, dsetid = self.dataset.data[index]
        try:
            image = read_image(path)
        except (BadImageError, FileNotFoundError) as error:
            if self.on_bad_image == "skip":
                return {"bad_image": path}
            if isinstance(error, BadImageError):
                raise
            raise _missing(path) from error
        transform = self.dataset.transform
        return {"img": transform(image), "pid": pid, "camid": camid, "impath": path, "dsetid": dsetid}


def explain_lost_worker(error: RuntimeError) -> str | None:
    """What to do after a process that loads images was lost; None for any other error."""
    lines = [line for line in str(error).splitlines() if _LOST.search(line)]
    if not lines:
        return None
    return (
        f"A process that loads images was lost ({lines[-1].strip()}). It was killed, memory ran out, or /dev/shm is "
        "too small. Lower data.workers, with 0 as the last resort, or give the machine or container more shared memory "
        "(docker run --shm-size=8g)"
    )


def reading_loader(
    dataset: Any, on_bad_image: str, batch_size: int, workers: int, pin_memory: bool = False, **settings: Any
) -> DataLoader:
    """A loader of the batches of :func:`collate` over a :class:`ReadingDataset`."""
    images = ReadingDataset(dataset, on_bad_image)
    settings = {"batch_size": batch_size, "num_workers": workers, "pin_memory": pin_memory, **settings}
    return DataLoader(images, collate_fn=collate, **settings)


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Makes a batch of what could be read; the paths of the others stand in ``bad_images``."""
    good = [item for item in items if "bad_image" not in item]
    bad = [item["bad_image"] for item in items if "bad_image" in item]
    batch: dict[str, Any] = default_collate(good) if good else {"pid": torch.empty(0, dtype=torch.long)}
    if bad:
        batch["bad_images"] = bad
    return batch
