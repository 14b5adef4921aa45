"""Reading images: an unreadable one is named, or left out and counted; the host's reader never gives up."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

POLICIES = ("error", "skip")


class BadImageError(OSError):
    """An image file cannot be read.

    A loader's worker hands its errors on with a traceback in front; the message alone is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("BadImageError: ")[2].strip())


def read_image(path: str | Path | IO[bytes]) -> Image.Image:
    """Reads an image as RGB.

    Raises:
        FileNotFoundError: no such file.
        BadImageError: empty, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImageError(
            f"The image {path} cannot be read ({error}). Replace or delete it, or set data.on_bad_image skip"
        ) from error


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
        except (BadImageError, FileNotFoundError):
            if self.on_bad_image == "error":
                raise
            return {"bad_image": path}
        transform = self.dataset.transform
        return {"img": transform(image), "pid": pid, "camid": camid, "impath": path, "dsetid": dsetid}


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
