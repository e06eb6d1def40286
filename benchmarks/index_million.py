"""An index of a million embeddings: recall@10, the time of a query, and the memory of the process that searches.

The embeddings are made up, but like real ones: some thousand topics of unequal size, a spectrum that decays, a mean
that is not zero, and queries by text that lie elsewhere than the pictures. Both the build and the search run in fresh
processes, so that each has its own peak of memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import ROOT, Claim

from cusa.common.memory import peak_memory_gib

ROWS = int(os.environ.get("CUSA_INDEX_ROWS", 1_000_000))
DIMENSION = 512
TOPICS = 5000
QUERIES = 300  # by text, and as many by pictures; none of them is known to the build
TOP = 10
BLOCK = 50_000
FLAT = 4 * ROWS * DIMENSION  # bytes of the float32 array


class Embeddings:
    """Draws normalised embeddings of pictures and of texts."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.spectrum = (np.arange(1, DIMENSION + 1) ** -0.5).astype(np.float32)
        self.rotation = np.linalg.qr(random.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
        self.topics = random.standard_normal((TOPICS, DIMENSION)).astype(np.float32)
        self.mean, self.text_mean = random.standard_normal((2, DIMENSION)).astype(np.float32)
        sizes = np.arange(1, TOPICS + 1) ** -0.7
        self.shares = sizes / sizes.sum()

    def pictures(self, count: int, seed: int) -> np.ndarray:
        return self._draw(count, seed, 0.5 * self.mean, 0.7)

    def texts(self, count: int, seed: int) -> np.ndarray:
        return self._draw(count, seed, 0.5 * self.text_mean, 1.0)

    def _draw(self, count: int, seed: int, mean: np.ndarray, noise: float) -> np.ndarray:
        random = np.random.default_rng(seed)
        rows = self.topics[random.choice(TOPICS, size=count, p=self.shares)]
        rows = (rows + mean + noise * random.standard_normal(rows.shape, dtype=np.float32)) * self.spectrum
        rows = rows @ self.rotation
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def main() -> None:
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["search"]:
        search(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            measure(Path(folder))


def measure(folder: Path) -> None:
    drawn = Embeddings()
    out = make_gallery(folder, drawn)
    built = in_a_fresh_process("build", folder)
    queries = np.concatenate([drawn.texts(QUERIES, 10_001), drawn.pictures(QUERIES, 10_002)])
    np.save(folder / "queries.npy", queries)
    found = in_a_fresh_process("search", folder)
    last = exact_last(np.load(out / "embeddings.npy", mmap_mode="r"), queries)
    near = np.load(folder / "scores.npy") >= last[:, None] - 1e-5
    by_text, by_picture = near[:QUERIES].mean(), near[QUERIES:].mean()
    print(built["table"])
    what = f"index of {ROWS:,} embeddings of {DIMENSION} values ({built['factory']}, {built['search']}): "
    recalls = f"{by_text:.3f} by text, {by_picture:.3f} by picture"
    Claim(what + "recall@10 against exact search", recalls, "0.95", bool(min(by_text, by_picture) >= 0.95)).report()
    times = f"p50 {found['p50']:.2f} ms, p95 {found['p95']:.2f} ms"
    Claim("the same: one query, in one process, one after the other", times, "p50 10 ms", found["p50"] < 10).report()
    gib = 2**30
    what = "the same: memory of the searching process, RSS less file pages, with the items of the results"
    memory = f"{found['private'] / gib:.2f} GiB; {found['peak']:.2f} GiB peak with the pages of mapped files"
    Claim(what, memory, f"{FLAT / 2 / gib:.2f} GiB, half of the array", found["private"] < FLAT / 2).report()
    print(f"built in {built['seconds']:.0f} s with a peak of {built['peak']:.2f} GiB; {built['bytes'] / 1e6:.0f} MB")


def make_gallery(folder: Path, drawn: Embeddings) -> Path:
    from cusa.gallery.items import items_table
    from cusa.gallery.store import write_gallery

    array = np.lib.format.open_memmap(folder / "drawn.npy", "w+", np.float32, (ROWS, DIMENSION))
    for start in range(0, ROWS, BLOCK):
        array[start : start + BLOCK] = drawn.pictures(min(BLOCK, ROWS - start), start)
    items = items_table([f"{row // 1000:04}/{row:07}.jpg" for row in range(ROWS)])
    write_gallery(folder / "out", array, items, folder / "model", "0" * 64)
    del array
    (folder / "drawn.npy").unlink()
    texts = items_table([f"text {row}" for row in range(500)])
    write_gallery(folder / "texts", drawn.texts(500, 10_000), texts, folder / "model", "0" * 64, modality="text")
    return folder / "out"


def in_a_fresh_process(task: str, folder: Path) -> dict:
    command = [sys.executable, __file__, task, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def build(folder: Path) -> None:
    from cusa.index.build import build_index
    from cusa.index.options import IndexOptions
    from cusa.index.table import table

    started = time.perf_counter()
    meta = build_index(folder / "out", options=IndexOptions(queries=folder / "texts", duplicates="same"))
    search = ", ".join(f"{name} {value}" for name, value in meta.search.model_dump(exclude_none=True).items())
    result = {"factory": meta.factory, "search": search, "bytes": meta.bytes, "table": "\n".join(table(meta))}
    print(json.dumps({**result, "seconds": time.perf_counter() - started, "peak": peak_memory_gib()}))


def search(folder: Path) -> None:
    from cusa.index.folder import SearchIndex

    index = SearchIndex.open(folder / "out")
    names = index.items["item"]
    queries, times, scores = np.load(folder / "queries.npy"), [], []
    for query in queries:
        started = time.perf_counter()
        found, rows = index.nearest(query[None], TOP)
        [names[row].as_py() for row in rows[0].tolist()]
        times.append(1000 * (time.perf_counter() - started))
        scores.append(found[0])
    np.save(folder / "scores.npy", np.array(scores))
    p50, p95 = np.percentile(times, [50, 95])
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    private = 1024 * sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem"))
    print(json.dumps({"p50": p50, "p95": p95, "private": private, "peak": peak_memory_gib()}))


def exact_last(gallery: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The cosine of the TOPth nearest row of each query, by comparing it with every row: float32 [n]."""
    best = np.full((len(queries), TOP), -2, dtype=np.float32)
    for start in range(0, len(gallery), BLOCK):
        together = np.concatenate([best, queries @ gallery[start : start + BLOCK].T], axis=1)
        best = -np.partition(-together, TOP - 1, axis=1)[:, :TOP]
    return best.min(axis=1)


if __name__ == "__main__":
    main()
