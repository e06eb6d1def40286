"""SVG drawings become PNG pictures, in several processes: resvg keeps Python's lock while it draws."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from cusa.common.progress import progress

DRAWINGS_PER_PROCESS = 200  # fewer are drawn before another process has started
DRAWINGS_AT_A_TIME = 16


def rasterise(drawings: Sequence[Path], folder: Path, size: int, processes: int = 1) -> None:
    """Write {stem}.png, `size` x `size` pixels on white, into `folder` for each SVG file.

    At most `processes` processes draw; the bytes do not depend on how many. Raises ValueError for what is not an SVG.
    """
    draw = partial(_draw, folder, size)
    processes = min(processes, len(drawings) // DRAWINGS_PER_PROCESS)
    with_progress = partial(progress, total=len(drawings), unit="pictures", description="rasterising OpenMoji")
    if processes < 2:
        for _ in with_progress(map(draw, drawings)):
            pass
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("forkserver")) as pool:
        for _ in with_progress(pool.map(draw, drawings, chunksize=DRAWINGS_AT_A_TIME)):
            pass


def _draw(folder: Path, size: int, svg: Path) -> None:
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_path=str(svg), width=size, height=size, background="white", skip_system_fonts=True)
    (folder / f"{svg.stem}.png").write_bytes(bytes(png))
