"""The findings of `cusa check` about the sections `search` and `exports`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from cusa.commands.finding import Finding
from cusa.errors import CusaError
from cusa.gallery.sources.opening import open_source
from cusa.plan import SearchPlan

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
FLOAT32 = 4  # bytes
GIGABYTE = 1e9


@dataclass(frozen=True)
class ModelSize:
    """The parameters of a student, frozen towers included, and the length of its embeddings."""

    parameters: int
    dimension: int


def search_findings(
    search: SearchPlan, images: Mapping[str, int], sizes: Mapping[str, ModelSize], needed: list[float]
) -> Iterator[Finding]:
    """The gallery, the packages that exports need, and the bytes of both, which are added to `needed`.

    `images` has the number of images of each split, and `sizes` the models of the runs that could be loaded.
    """
    if search.searched_runs:
        yield from _gallery(search, images, sizes, needed)
    formats = search.exported_formats()
    if any(name == "onnx" for _, name in formats):
        yield _onnx()
    yield from _exports(formats, sizes, needed)


def _gallery(
    search: SearchPlan, images: Mapping[str, int], sizes: Mapping[str, ModelSize], needed: list[float]
) -> Iterator[Finding]:
    place = search.own_gallery or f"the splits {', '.join(search.galleries[search.gallery])}"
    try:
        rows = _rows(search, images)
    except CusaError as error:
        yield Finding("gallery", str(error), sound=False)
        return
    if rows == 0:
        yield Finding("gallery", f"search.gallery is {place}, but it has no image", sound=False)
        return
    runs = ", ".join(search.searched_runs)
    if rows is None:
        text = f"{place}, searched with {runs}; how many images it has is known when it is embedded"
        yield Finding("gallery", f"{text}, so its size is not among those below", doubtful=True)
        return
    # The embeddings, and the index, which is never much larger.
    size = sum(2 * FLOAT32 * rows * sizes[run].dimension for run in search.searched_runs if run in sizes)
    needed.append(size)
    yield Finding("gallery", f"{place}: {rows:,} images, searched with {runs}; {size / GIGABYTE:.2f} GB")


def _rows(search: SearchPlan, images: Mapping[str, int]) -> int | None:
    """The number of images in the gallery; None if all of it would have to be read for that."""
    if search.own_gallery is None:
        return sum(images.get(split, 0) for split in search.galleries[search.gallery])
    return open_source(search.own_gallery).total


def _onnx() -> Finding:
    """Whether models can be exported to ONNX, and such models can embed queries."""
    if missing := [package for package in ONNX_PACKAGES if find_spec(package) is None]:
        text = f"{', '.join(missing)} cannot be imported, but models are exported to ONNX, for queries or because of "
        text += "exports.formats. Run pip install 'cusa[onnx]'; or set search.queries: run"
        return Finding("onnx", text, sound=False)
    return Finding("onnx", ", ".join(ONNX_PACKAGES))


def _exports(formats: list[tuple[str, str]], sizes: Mapping[str, ModelSize], needed: list[float]) -> Iterator[Finding]:
    size = sum(FLOAT32 * sizes[run].parameters for run, _ in formats if run in sizes)
    needed.append(size)
    if formats:
        names = ", ".join(f"{run} to {name}" for run, name in formats)
        yield Finding("exports", f"{names}; {size / GIGABYTE:.2f} GB")
