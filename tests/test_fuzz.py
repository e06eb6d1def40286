"""A few rounds of `make fuzz`, always the same ones; and its own judgement is tested on readers that are wrong."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import fuzz
from fuzz_readers import Case, WrongResultError

from cusa.errors import DataError

ROOT = Path(__file__).parents[1]


def test_some_rounds_of_every_reader_find_nothing(tmp_path):
    command = [
        sys.executable,
        ROOT / "tests/fuzz.py",
        "--seed",
        "11",
        "--rounds",
        "80",
        "--failures",
        tmp_path / "failures",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "80 rounds" in done.stdout
    assert not (tmp_path / "failures").exists()


def lines_case(path: Path, read) -> Case:
    path.write_bytes(b"heading\n" + b"".join(b"row %d\n" % number for number in range(20)))
    return Case([path], read, {path: "lines"}, headings=1)


def rounds(case: Case, number: int) -> list[BaseException | None]:
    """What comes of so many rounds of a case."""
    path, found = case.files[0], []
    content = path.read_bytes()
    for seed in range(number):
        check = fuzz.change(case, path, content, random.Random(seed), 20)
        try:
            check()
            found.append(None)
        except Exception as error:  # noqa: BLE001
            found.append(error)
        path.write_bytes(content)
    return found


def test_a_reader_that_swallows_rows_is_found(tmp_path):
    path = tmp_path / "rows.txt"

    def read() -> int:
        return len({line for line in path.read_bytes().splitlines()[1:] if line.strip()})  # equal rows are one

    wrong = [error for error in rounds(lines_case(path, read), 100) if error is not None]
    assert wrong
    assert all(isinstance(error, WrongResultError) and "instead of 21" in str(error) for error in wrong)


def test_a_reader_that_takes_what_is_cut_off_is_found(tmp_path):
    path = tmp_path / "rows.bin"
    case = lines_case(path, lambda: 20)
    case.kinds[path] = "whole"
    assert any("is cut off, but was read" in str(error) for error in rounds(case, 50))


def test_a_failure_is_told_with_its_file_and_the_command_that_repeats_it(tmp_path, monkeypatch, capsys):
    def cases(folder: Path):
        (folder / "good.txt").write_text("abc")

        def read() -> None:
            if (folder / "good.txt").read_text() != "abc":
                raise ZeroDivisionError("the reader's fault")

        yield "bad reader", Case([folder / "good.txt"], read, {})

    (tmp_path / "work").mkdir()
    monkeypatch.setattr(fuzz, "cases", cases)
    fuzzer = fuzz.Fuzzer(tmp_path / "work", 3, tmp_path / "failures")
    assert "failure" in [fuzzer.round(number) for number in range(5)]
    told = capsys.readouterr().out
    assert "FAILURE of bad reader: ZeroDivisionError: the reader's fault" in told
    assert "repeat: python tests/fuzz.py --seed 3 --first " in told
    first = int(told.split("--first ")[1].split()[0])
    saved = (tmp_path / f"failures/3-{first}-bad-reader.txt").read_bytes()
    assert saved != b"abc"


def test_a_process_that_crashes_costs_one_round(tmp_path, monkeypatch):
    """The state file says which round was running."""
    calls = []

    def crash(command, **options):
        calls.append(command)
        state, first = Path(command[3]), int(command[5])
        crashed = first == 0
        state.write_text(json.dumps({"number": 4, "name": "x", "counts": {"result": 4}} if crashed else {"next": 9}))
        return subprocess.CompletedProcess(command, -11 if crashed else 0, stderr="")

    monkeypatch.setattr(subprocess, "run", crash)
    counts = fuzz.run(seed=1, first=0, rounds=9, seconds=60, failures=tmp_path / "failures")
    assert counts == {"result": 4, "failure": 1}
    assert [int(command[5]) for command in calls] == [0, 5]
    assert "status -11" in (tmp_path / "failures/1-4-x.txt").read_text()


def test_a_refusal_is_no_failure(tmp_path, monkeypatch):
    def cases(folder: Path):
        (folder / "good.txt").write_text("abc")

        def read() -> None:
            if (folder / "good.txt").read_bytes() != b"abc":
                raise DataError("good.txt is not abc.")

        yield "good reader", Case([folder / "good.txt"], read, {})

    (tmp_path / "work").mkdir()
    monkeypatch.setattr(fuzz, "cases", cases)
    fuzzer = fuzz.Fuzzer(tmp_path / "work", 3, tmp_path / "failures")
    assert {fuzzer.round(number) for number in range(20)} <= {"refused", "result"}
