"""Files that a run reads and folders that it writes, looked at before work starts."""

import os
from collections.abc import Collection
from pathlib import Path

from yacs.config import CfgNode

from ..config.loading import ConfigError, get

FILES_OF_LOSS = {
    "std": ("std.teacher_weights",),
    "compatible": ("compat.old_weights", "compat.independent", "compat.features", "compat.old_images"),
}
"""By the name of the loss, the settings that name further files than the weights a training begins from."""


def check_places(config: CfgNode, filled: Collection[str] = ()) -> None:
    """Makes sure that files to read exist and that folders to write can be written.

    Args:
        config: of a run.
        filled: settings that name what an earlier stage of a chain writes.

    Raises:
        ConfigError: a folder cannot be written; names the setting.
        FileNotFoundError: there is no such file; names the setting.
    """
    require_writable("data.save_dir", Path(config.data.save_dir))
    further = () if config.test.evaluate else FILES_OF_LOSS.get(config.loss.name, ())
    if further and config.compat.bank:
        require_writable("compat.bank", Path(config.compat.bank).parent)
    resume = () if config.model.resume == "auto" else ("model.resume",)
    for key in ("model.load_weights", *resume, *further):
        name = get(config, key)
        if name and key not in filled and not Path(name).is_file():
            what = "a folder" if Path(name).is_dir() else "which does not exist"
            raise FileNotFoundError(f"{key} names {name}, {what}; a file is needed")


def require_writable(key: str, folder: Path) -> None:
    """Makes sure that a folder can be written, or made where it is missing.

    Raises:
        ConfigError: it is a file, lies below one, or may not be written.
    """
    whole = folder.absolute()
    place = next(each for each in (whole, *whole.parents) if os.path.lexists(each))
    if not place.exists():
        what = "a link to nothing"
    elif not place.is_dir():
        what = "no folder"
    elif not os.access(place, os.W_OK | os.X_OK):
        what = "not to be written by you"
    else:
        return
    raise ConfigError(f"{key} needs the folder {folder}, and {place} is {what}; choose another one")
