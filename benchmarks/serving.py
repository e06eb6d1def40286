"""The search server under load, with and without batching: python benchmarks/serving.py [INDEX]

INDEX is an index folder; by default that of the demo, which `make demo` writes. Its run answers on the CPU, in PyTorch,
and then the ONNX export that the index names. First one client asks one text after the other. Then 32 clients ask at
once, for a minute with batching and for a minute without. Every text is asked once, so that no cache could answer. The
clients are another process, which shares the cores with the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
from measure import ROOT, Claim

DEMO = ROOT / "results/openmoji/runs/cusa/seed23/search/all"
CLIENTS = 32
SECONDS = 60.0
WARM_UP = 3.0
ONE_CLIENT = 500  # queries
TOP = 20
MEMORY_BAR = 100.0  # MiB that the server may have grown by after a minute


@dataclass
class Load:
    """What the clients saw: milliseconds of each answer, and the answers that were no results."""

    milliseconds: np.ndarray
    wrong: list[str]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.milliseconds) / self.seconds

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.milliseconds, share))


class Texts:
    """Texts of two captions each, no text twice."""

    def __init__(self, captions: list[str], seed: int) -> None:
        self.captions, self.random, self.used = captions, random.Random(seed), set()

    def __next__(self) -> str:
        while (text := " ".join(self.random.sample(self.captions, 2))) in self.used:
            pass
        self.used.add(text)
        return text


async def ask_one_after_the_other(port: int, texts: Texts, until: float, most: int, load: Load) -> None:
    """One client: a connection that stays open. Plain sockets, because a library would cost more than the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times = []
    while time.monotonic() < until and len(times) < most:
        started = time.perf_counter()
        writer.write(f"GET /api/search?top={TOP}&q={quote(next(texts))} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1]))
        times.append((time.perf_counter() - started) * 1000)
        if not head.startswith(b"HTTP/1.1 200") or body.count(b'"row"') < TOP:
            load.wrong.append(f"{head.splitlines()[0].decode()}: {body[:200].decode()}")
    writer.close()
    load.milliseconds = np.concatenate([load.milliseconds, times])


async def clients(port: int, texts: Texts, count: int, seconds: float, most: int) -> Load:
    load = Load(np.empty(0), [], 0.0)
    started = time.monotonic()
    await asyncio.gather(*(ask_one_after_the_other(port, texts, started + seconds, most, load) for _ in range(count)))
    load.seconds = time.monotonic() - started
    return load


def client(port: int, captions: Path, count: int, seconds: float, most: int, seed: int) -> None:
    """The process of the clients: prints what they saw."""
    texts = Texts(json.loads(captions.read_text()), seed)
    load = asyncio.run(clients(port, texts, count, seconds, most))
    print(json.dumps([load.milliseconds.tolist(), load.wrong[:5], len(load.wrong), load.seconds]))


def in_a_process(port: int, captions: Path, count: int, seconds: float, most: int, seed: int) -> Load:
    command = [sys.executable, __file__, "--client", str(port), str(captions), str(count), str(seconds), str(most)]
    done = subprocess.run([*command, str(seed)], stdout=subprocess.PIPE, check=True)
    milliseconds, wrong, count_wrong, took = json.loads(done.stdout)
    if wrong:
        print(f"{count_wrong} answers were wrong, for instance {wrong[0]}")
    return Load(np.array(milliseconds), wrong, took)


@contextmanager
def server(index: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    command = [sys.executable, "-m", "cusa.cli", "serve", str(index), "--port", "0", "--device", "cpu", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline()
        if not line.startswith("http"):
            sys.exit(f"the server did not start: {line}")
        yield int(line.rstrip("/\n").rpartition(":")[2]), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            sys.exit(f"the server ended with status {process.returncode}")


def memory(process: psutil.Process) -> float:
    """MiB of the server."""
    return process.memory_info().rss / 2**20


def cpu_seconds(process: psutil.Process) -> float:
    """What the server has taken of the cores. Where others use them too, this tells more than the rate."""
    times = process.cpu_times()
    return times.user + times.system


def batches(port: int) -> str:
    """The mean size of the batches, as /metrics tells."""
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    total, count = (
        sum(map(float, re.findall(rf"^cusa_batch_size_{name}{{.*}} (\S+)$", text, re.MULTILINE)))
        for name in ("sum", "count")
    )
    return f"{total / count:.1f}"


def main() -> None:
    index = Path(sys.argv[1] if len(sys.argv) > 1 else DEMO).absolute()
    if not index.is_dir():
        sys.exit(f"{index} does not exist; run `make demo` first.")
    from cusa.common.files import read_json
    from cusa.index.folder import SearchIndex

    opened = SearchIndex.open(index)
    captions = ROOT / "benchmarks/results/serving-captions.json"
    captions.parent.mkdir(exist_ok=True)
    captions.write_text(json.dumps([caption for row in opened.captions.to_pylist() for caption in row]))
    run = read_json(index / opened.meta.galleries[0].folder / "meta.json")["model"]
    print(f"{opened.rows:,} rows; the load average before: {os.getloadavg()[0]:.1f}")
    rates = measured(index, captions, "the run in PyTorch", "--model", run)
    ratio = rates["on"] / rates["off"]
    found = f"{rates['on']:.0f} queries/s with batching, {rates['off']:.0f} without: {ratio:.1f} times"
    Claim(f"{CLIENTS} clients at once, the run in PyTorch", found, "3 times", ratio >= 3).report()
    if opened.model.resolve() != Path(run).resolve():
        # onnxruntime takes less than half of PyTorch's time for one text, so that batching has less to gain.
        exported = measured(index, captions, "the ONNX export")
        found = f"{exported['on']:.0f} queries/s with batching, {exported['off']:.0f} without"
        bar = "both more than PyTorch"
        holds = all(exported[name] >= rates[name] for name in rates)
        Claim(f"{CLIENTS} clients at once, the ONNX export", found, bar, holds).report()


def measured(index: Path, captions: Path, model: str, *options: str) -> dict[str, float]:
    """Queries a second with batching on and off."""
    rates = {}
    for name, batching in (("on", ()), ("off", ("--batch", "1"))):
        with server(index, *options, *batching) as (port, process):
            in_a_process(port, captions, 1, 60, 100, seed=1)  # warm
            if name == "on":
                one_client(port, captions, model)
            in_a_process(port, captions, CLIENTS, WARM_UP, 10**9, seed=3)
            before, busy = memory(process), cpu_seconds(process)
            load = in_a_process(port, captions, CLIENTS, SECONDS, 10**9, seed=4)
            rates[name] = load.rate
            grown, busy = memory(process) - before, cpu_seconds(process) - busy
            cost = 1000 * busy / len(load.milliseconds)
            print(
                f"{model}, batching {name}: {load.rate:.0f} queries/s, p50 {load.percentile(50):.0f} ms, p95 "
                f"{load.percentile(95):.0f} ms, {cost:.1f} ms of a core per query, batches of {batches(port)}, "
                f"memory {before:.0f} MiB + {grown:.0f} MiB"
            )
            what = f"{CLIENTS} clients for {SECONDS:.0f} s, {model}, batching {name}"
            found = f"{len(load.wrong)} errors in {len(load.milliseconds):,} answers; memory grew by {grown:.0f} MiB"
            holds = not load.wrong and grown <= MEMORY_BAR
            Claim(what, found, f"no error, at most {MEMORY_BAR:.0f} MiB", holds).report()
    return rates


def one_client(port: int, captions: Path, model: str) -> None:
    load = in_a_process(port, captions, 1, 120, ONE_CLIENT, seed=2)
    p50, p95 = load.percentile(50), load.percentile(95)
    found = f"p50 {p50:.1f} ms, p95 {p95:.1f} ms of {ONE_CLIENT} texts"
    holds = p50 <= 30 and p95 <= 60 and not load.wrong
    Claim(f"text to JSON, one client, {model}", found, "p50 30 ms, p95 60 ms", holds).report()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        port, captions, count, seconds, most, seed = sys.argv[2:]
        client(int(port), Path(captions), int(count), float(seconds), int(most), int(seed))
    else:
        main()
