"""Ids of images for the formats that identify an image by its file."""

from __future__ import annotations

import os


class ImageNames:
    """The ids of images by their files: the file's name, preceded by folders if names are equal.

    So pics/0.jpg and vg/0.jpg are two images, `0.jpg` and `vg/0.jpg`: the first one that is met has the short id.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def identity(self, location: str) -> str:
        """The id of the image at an absolute path; the same for `a/../a/0.jpg` and `a/0.jpg`."""
        location = os.path.normpath(location)
        place, name = hash(location), location.rpartition("/")[2]
        if self._places.setdefault(name, place) == place:  # most names are unique
            return name
        parts = location.split("/")
        names = ("/".join(parts[-depth:]) for depth in range(2, len(parts)))
        return next((name for name in names if self._places.setdefault(name, place) == place), location)
