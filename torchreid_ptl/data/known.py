"""What to say of a name that no registered image data set has."""

from collections.abc import Iterable

from .. import host
from ..runtime.hints import hint

_SAME_PLACE = {"mars": "market1501", "dukemtmcvidreid": "dukemtmcreid", "ilidsvid": "ilids", "prid2011": "prid"}
"""Video sets, and the image set filmed in the same place."""


def hint_dataset(name: str, known: Iterable[str] | None = None) -> str:
    """A half sentence: that it is a video set, or the closest known name; and all that are allowed."""
    known = list(host.image_datasets() if known is None else known)
    if name not in host.video_datasets():
        return hint(name, known)
    near = _SAME_PLACE.get(name)
    return (
        "a video data set: its items are sequences of images, which the engines for images take neither for training "
        f"nor for tests. {f'The image set of the same place is {near!r}. ' if near in known else ''}"
        f"Allowed: {', '.join(known)}"
    )
