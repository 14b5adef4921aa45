"""Identities and cameras: which pairs of images are matches and which are junk."""

from functools import cached_property

import numpy as np

from .arrays import NAMED_IN_ERRORS, Booleans, Integers
from .descriptors import Descriptors


class PairLabels:
    """Identities and cameras of queries and gallery, with the pairs of one identity found without a (Q, G) mask."""

    def __init__(self, query: Descriptors, gallery: Descriptors) -> None:
        self.query_pids, self.query_camids = query.pids, query.camids
        self.gallery_pids, self.gallery_camids = gallery.pids, gallery.camids
        self._by_pid = self.gallery_pids.argsort(kind="stable")
        ordered = self.gallery_pids[self._by_pid]
        self._first = np.searchsorted(ordered, self.query_pids, "left")
        self._counts = np.searchsorted(ordered, self.query_pids, "right") - self._first

    def same_identity(self, rows: slice) -> tuple[Integers, Integers, Booleans]:
        """Pairs (P,) of some queries, both ends given, with the gallery images of their identity.

        Rows from the first query, columns, and whether both are by one camera: junk; the others are matches. They are
        ordered by query and then by gallery index.
        """
        counts = self._counts[rows]
        owners = np.repeat(np.arange(len(counts)), counts)
        offsets = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = self._by_pid[np.repeat(self._first[rows], counts) + offsets]
        return owners, columns, self.gallery_camids[columns] == self.query_camids[rows][owners]

    @cached_property
    def groups(self) -> tuple[Integers, Integers, Integers]:
        """Gallery indices by identity (G,); where each identity starts in them, and its number of images (I,)."""
        _, starts, counts = np.unique(self.gallery_pids[self._by_pid], return_index=True, return_counts=True)
        return self._by_pid, starts, counts

    def without_match(self) -> Integers:
        """Indices of the queries whose identity no other camera of the gallery sees."""
        lost = self._counts == 0
        if not lost.all():
            # Cameras of an identity are all the query's own if the least and the largest of them are.
            cameras = self.gallery_camids[self._by_pid]
            starts = self._first[~lost]
            ends = starts + self._counts[~lost]
            bounds = np.unique(np.concatenate([starts, ends[ends < len(cameras)]]))
            place = np.searchsorted(bounds, starts)
            least, most = (ufunc.reduceat(cameras, bounds)[place] for ufunc in (np.minimum, np.maximum))
            own = self.query_camids[~lost]
            lost[~lost] = (least == own) & (most == own)
        return np.flatnonzero(lost)

    def explain(self, queries: Integers, first_camera: int = 0) -> str:
        """Why some of the queries have no match: identities and the cameras that see them, five at most.

        ``first_camera`` is what the camera 0 is called.
        """
        named: list[str] = []
        for pid in np.unique(self.query_pids[queries]).tolist():
            cameras = (np.unique(self.gallery_camids[self.gallery_pids == pid]) + first_camera).tolist()
            if len(named) == NAMED_IN_ERRORS:
                return "; ".join([*named, "..."])
            named.append(
                f"identity {pid} is seen in the gallery by cameras {cameras} only, which is the query's own"
                if cameras
                else f"identity {pid} is not in the gallery"
            )
        return "; ".join(named)
