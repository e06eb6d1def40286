"""`make fuzz SECONDS=60 SEED=1`: runs every reader on damaged copies of small valid files.

A reader has to return a result, or raise CusaError with a sentence. Anything else is a failure, and so is a number of
records that is known to be wrong. Each round changes one file of one reader; the seed and the number of the round
decide the change. A failure is printed with the command that repeats it, and its file is saved in fuzz-failures/.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from fuzz_readers import Case, Kind, WrongResultError, cases

from cusa.errors import CusaError

GIGABYTE = 1 << 30
MEMORY = 3 * GIGABYTE  # of private memory; torch alone takes about half a gigabyte
SECONDS_A_ROUND = 30
ROUNDS_A_PROCESS = 4000
TOKENS = (
    *(
        b'"',
        b"'",
        b"\n",
        b"\r",
        b"\t",
        b",",
        b";",
        b"|",
        b"[",
        b"]",
        b"{",
        b"}",
        b":",
        b"#",
        b"\\",
        b"/",
        b"../",
        b"\0",
    ),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xe9", b"\xed\xa0\x80", b"\\ud800", "\u2028".encode()),
    *(b"NaN", b"Infinity", b"null", b"true", b"-1", b"1e999", b"0x10", b"1:30", b"[" * 3000, b"9" * 5000),
    *(b"~", b"$HOME", b"&a [*a]", b"!!python/object/apply:os.system [id]", b"cos\nsystem\n", b"<html>"),
    *(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\x80\0\0\0", b"\xff" * 8),
)


class TooSlowError(BaseException):
    """A round took longer than SECONDS_A_ROUND. Readers that catch Exception do not catch it."""


# Changes of any bytes


def _flip(content: bytearray, chance: random.Random, place: int, size: int) -> None:
    content[place] ^= 1 << chance.randrange(8)


def _overwrite(content: bytearray, chance: random.Random, place: int, size: int) -> None:
    token = chance.choice(TOKENS)
    content[place : place + len(token)] = token


def _insert(content: bytearray, chance: random.Random, place: int, size: int) -> None:
    content[place:place] = chance.choice(TOKENS)


def _delete(content: bytearray, chance: random.Random, place: int, size: int) -> None:
    del content[place : place + size]


def _repeat(content: bytearray, chance: random.Random, place: int, size: int) -> None:
    content[place:place] = content[place : place + size] * chance.randrange(1, 4)


def _empty(content: bytearray, chance: random.Random, place: int, size: int) -> None:
    content[place : place + size] = bytes(len(content[place : place + size]))


def _cut(content: bytearray, chance: random.Random, place: int, size: int) -> None:
    del content[place:]


def _move(content: bytearray, chance: random.Random, place: int, size: int) -> None:
    piece = content[place : place + size]
    del content[place : place + size]
    target = chance.randrange(len(content) + 1)
    content[target:target] = piece


CHANGES = (_flip, _flip, _overwrite, _overwrite, _insert, _delete, _repeat, _empty, _cut, _move)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Some bytes with one to four random changes."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if changed:
            size = chance.choice((1, 2, 4, 16, 64, 512))
            chance.choice(CHANGES)(changed, chance, chance.randrange(len(changed)), size)
    return bytes(changed)


# Changes whose effect is known: the new bytes, and how many records more there are, or None where it must be refused


def known_change(content: bytes, kind: Kind, headings: int, chance: random.Random) -> tuple[bytes, int | None] | None:
    """A change whose effect is known, or None where there is none for files of this kind."""
    if kind == "whole" and len(content.rstrip()) > 2:
        # A tar ends with empty blocks; what is cut off has to be more than those.
        end = len(content.rstrip(b"\0").rstrip()) - 1
        return content[: chance.randrange(end)], None
    if kind != "lines":
        return None
    lines = content.splitlines(keepends=True)
    lines[-1] = lines[-1].rstrip(b"\n") + b"\n"
    row = chance.randrange(headings, len(lines) - 1)
    match chance.randrange(5):
        case 0:
            return b"".join(lines[:row] + lines[row + 1 :]), -1
        case 1:
            return b"".join([*lines[:row], lines[row], *lines[row:]]), 1
        case 2:
            return b"\xef\xbb\xbf" + b"".join(lines), 0
        case 3:
            return b"".join(line.rstrip(b"\n") + b"\r\n" for line in lines), 0
        case _:
            return b"".join(lines) + b"\n", 0


def change(case: Case, path: Path, content: bytes, chance: random.Random, expected: int | None) -> Callable[[], None]:
    """Change a file of a case. Returns what checks the result: to be called with the file in place."""
    known = (
        known_change(content, case.kinds.get(path, "other"), case.headings, chance) if chance.random() < 0.3 else None
    )
    path.write_bytes(damaged(content, chance) if known is None else known[0])

    def check() -> None:
        found = case.read()
        if known is None:
            return
        if known[1] is None:
            raise WrongResultError(f"{path.name} is cut off, but was read: {found} records")
        if expected is not None and found != expected + known[1]:
            raise WrongResultError(f"{found} records instead of {expected + known[1]}")

    return check


# Rounds


def _too_slow(number: int, frame: object) -> None:
    raise TooSlowError(f"more than {SECONDS_A_ROUND} seconds")


class Fuzzer:
    """Runs rounds in this process. `failures` is the folder for files that make a reader fail."""

    def __init__(self, folder: Path, seed: int, failures: Path) -> None:
        self.seed, self.failures = seed, failures
        self.cases = dict(cases(folder))
        self.expected = {name: case.read() for name, case in self.cases.items()}
        self.originals = {path: path.read_bytes() for case in self.cases.values() for path in case.files}

    def round(self, number: int) -> str:
        """One round. Returns what came of it: `result`, `refused`, or `failure`, which is then told."""
        name = list(self.cases)[number % len(self.cases)]
        case, chance = self.cases[name], random.Random(f"{self.seed} {number}")
        path = chance.choice(case.files)
        check = change(case, path, self.originals[path], chance, self.expected[name])
        signal.alarm(SECONDS_A_ROUND)
        try:
            check()
        except CusaError as error:
            return (
                "refused" if str(error).strip() else self._failed(number, name, path, "a CusaError without a sentence")
            )
        except (Exception, TooSlowError):  # noqa: BLE001  # any other exception is what this program looks for
            return self._failed(number, name, path, traceback.format_exc())
        finally:
            signal.alarm(0)
            path.write_bytes(self.originals[path])
        return "result"

    def _failed(self, number: int, name: str, path: Path, what: str) -> str:
        tell_failure(self.failures, self.seed, number, name, path, what)
        return "failure"


def tell_failure(failures: Path, seed: int, number: int, name: str, path: Path | None, what: str) -> None:
    """Save the file of a failure, and print what happened and how to repeat it."""
    failures.mkdir(exist_ok=True)
    saved = failures / f"{seed}-{number}-{name.replace(' ', '-').replace(chr(39), '')}"
    command = f"python tests/fuzz.py --seed {seed} --first {number} --rounds 1"
    if path is not None:
        saved.with_name(f"{saved.name}{path.suffix}").write_bytes(path.read_bytes())
    saved.with_name(f"{saved.name}.txt").write_text(f"{command}\n\n{what}\n")
    lines = what.strip().splitlines()
    print(f"FAILURE of {name}: {lines[-1][:300]}\n    repeat: {command}\n    file:   {saved}*", flush=True)


def work(seed: int, first: int, rounds: int, deadline: float, state: Path, failures: Path) -> None:
    """Run rounds in this process and write to `state` which one is running, and the counts."""
    import transformers

    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fuzzer = Fuzzer(Path(folder), seed, failures)
        for number in range(first, first + rounds):
            if time.time() > deadline:
                break
            name = list(fuzzer.cases)[number % len(fuzzer.cases)]
            state.write_text(json.dumps({"number": number, "name": name, "counts": counts}))
            counts[fuzzer.round(number)] += 1
            state.write_text(json.dumps({"next": number + 1, "counts": counts}))


def run(seed: int, first: int, rounds: int, seconds: float, failures: Path) -> collections.Counter[str]:
    """Run rounds in processes of their own, one after another, so that a crash costs one round. Returns the counts."""
    total: collections.Counter[str] = collections.Counter()
    deadline, last = time.time() + seconds, first + rounds
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.json"
        while first < last and time.time() < deadline:
            state.write_text("{}")
            count = min(ROUNDS_A_PROCESS, last - first)
            words = ["--work", state, "--first", first, "--rounds", count, "--seed", seed, "--deadline", deadline]
            command = [sys.executable, __file__, *words, "--failures", failures]
            done = subprocess.run([str(word) for word in command], stderr=subprocess.PIPE, text=True, check=False)
            found = json.loads(state.read_text())
            total += collections.Counter(found.get("counts", {}))
            if done.returncode == 0:
                first = found["next"]
                continue
            if "number" not in found:
                raise SystemExit(f"the readers cannot read the valid files:\n{done.stderr}")
            what = f"{done.stderr[-2000:]}\nthe process ended with status {done.returncode}".strip()
            tell_failure(failures, seed, found["number"], found["name"], None, what)
            total["failure"] += 1
            first = found["number"] + 1
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long; default an hour")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="at most so many rounds")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for files of failures")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.seed, arguments.first, arguments.rounds, arguments.deadline, arguments.work, arguments.failures)
        return
    print(f"seed {arguments.seed}", flush=True)
    started = time.time()
    counts = run(arguments.seed, arguments.first, arguments.rounds, arguments.seconds, arguments.failures.absolute())
    told = ", ".join(f"{counts[name]:,} {name}" for name in ("result", "refused", "failure"))
    print(f"{counts.total():,} rounds in {time.time() - started:.0f} s: {told}")
    sys.exit(min(1, counts["failure"]))


if __name__ == "__main__":
    main()
