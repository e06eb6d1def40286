"""`cusa diff A B`: the settings and the scores of two runs side by side."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cusa.commands.run_list import text_table
from cusa.common.workflow_files import workflow_command

if TYPE_CHECKING:
    from cusa.runs.record import RunRecord

DESCRIPTION = """Show the settings in which two runs differ, and their scores.

The settings are those of run.json. The scores are those of all benchmarks that both runs have, in per cent (a median
rank is a rank). Each difference has a 95 % bootstrap interval for these test data. It does not show what another
seed would change."""
NOT_THERE = "-"


def add_diff(commands: Any) -> None:
    """Add the command to the subparsers of `cusa`."""
    command = commands.add_parser(
        "diff",
        help="compare the settings and the scores of two runs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("first", type=Path, help="run folder, results/{dataset}/runs/{experiment}/seed{n}")
    command.add_argument("second", type=Path, help="the other run folder")
    command.add_argument("--all", action="store_true", help="also print equal settings")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.set_defaults(call=_diff)


def _diff(arguments: argparse.Namespace) -> None:
    from cusa.runs.record import RunRecord

    folders = (arguments.first, arguments.second)
    records = (RunRecord.read(arguments.first), RunRecord.read(arguments.second))
    settings = settings_of_both(*records, equal_too=arguments.all)
    scores = scores_of_both(*folders)
    if arguments.json:
        content = {
            "runs": [str(folder) for folder in folders],
            "settings": {name: list(values) for name, values in settings.items()},
            "scores": scores,
        }
        sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    names = _short_names(*folders)
    rows = [("setting", *names), *((name, *map(_shown, values)) for name, values in settings.items())]
    sys.stdout.writelines(f"{line}\n" for line in text_table(rows, left=3))
    if not settings:
        sys.stdout.write("(the settings of both are equal)\n")
    sys.stdout.write("\n")
    sys.stdout.writelines(f"{line}\n" for line in _score_lines(scores, names, records))


def settings_of_both(first: RunRecord, second: RunRecord, equal_too: bool) -> dict[str, tuple[Any, Any]]:
    """The values of two configurations by key, those that differ or all; None if a run does not have the key.

    Differing versions of packages and SHA-256 of the data are included, as `versions...` and `data...`.
    """
    from cusa.tracking.tracker import flattened

    def content(record: RunRecord) -> dict[str, Any]:
        kept = record.model_dump(mode="json", include={"configuration", "versions", "data", "processes", "device"})
        return flattened(kept.pop("configuration")) | flattened({name: value for name, value in kept.items() if value})

    one, two = content(first), content(second)
    names = list(dict.fromkeys([*one, *two]))
    found = {name: (one.get(name), two.get(name)) for name in names if equal_too or one.get(name) != two.get(name)}
    # Data sets have their own files, so that all of these would differ without saying more.
    same_data = first.configuration.dataset == second.configuration.dataset
    return {name: each for name, each in found.items() if same_data or not name.startswith("data.")}


def scores_of_both(first: Path, second: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """By benchmark and metric: `first`, `second`, their `difference`, and its `interval` if one is known."""
    from cusa.benchmarks import outcomes_file
    from cusa.common.files import read_json
    from cusa.report.statistics import difference_intervals

    found: dict[str, dict[str, dict[str, Any]]] = {}
    scored = [{path.stem for path in (folder / "benchmarks").glob("*.json")} for folder in (first, second)]
    for name in sorted(scored[0] & scored[1]):
        results = [read_json(folder / f"benchmarks/{name}.json") for folder in (first, second)]
        statistics = {
            key: [outcomes_file.load(path)]
            for key, folder in zip("ab", (first, second), strict=True)
            if (path := folder / f"benchmarks/{name}.queries.npz").is_file()
        }
        comparable = len(statistics) == 2 and results[0]["dataset"] == results[1]["dataset"]
        intervals = difference_intervals(statistics, "a") if comparable else {}
        found[name] = {
            metric: _pair(value, results[1]["metrics"].get(metric), intervals.get(("b", metric)))
            for metric, value in results[0]["metrics"].items()
        }
    return found


def _pair(first: float | None, second: float | None, interval: tuple[float, float] | None) -> dict[str, Any]:
    difference = None if first is None or second is None else second - first
    content: dict[str, Any] = {"first": first, "second": second, "difference": difference}
    return content if interval is None else {**content, "interval": list(interval)}


def _score_lines(
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]], names: tuple[str, str], records: tuple[RunRecord, RunRecord]
) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("score", *names, "difference", "95 % interval")]
    selected = [(record.selection_metrics or {}).get("r_mean") for record in records]
    if any(value is not None for value in selected):
        split = records[0].configuration.train.selection_split
        rows.append(
            (f"r_mean on {split}, selected", *map(_figure, selected), _difference(selected[0], selected[1]), "")
        )
    for benchmark, metrics in scores.items():
        for metric, each in metrics.items():
            low_high = each.get("interval")
            interval = "" if low_high is None else f"[{low_high[0]:+.2f}, {low_high[1]:+.2f}]"
            figures = (_figure(each["first"]), _figure(each["second"]))
            rows.append((f"{benchmark} {metric}", *figures, _difference(each["first"], each["second"]), interval))
    yield from text_table(rows, left=1)
    if not scores:
        yield f"(no benchmark has scored both; `{workflow_command('scores')}` does)"


def _figure(value: float | None) -> str:
    return NOT_THERE if value is None else f"{value:.2f}"


def _difference(first: float | None, second: float | None) -> str:
    return "" if first is None or second is None else f"{second - first:+.2f}"


def _shown(value: Any) -> str:
    return NOT_THERE if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short_names(first: Path, second: Path) -> tuple[str, str]:
    """The shortest ends of two paths that differ."""
    one, two = first.absolute().parts, second.absolute().parts
    length = next((n for n in range(2, max(len(one), len(two))) if one[-n:] != two[-n:]), 2)
    return "/".join(one[-length:]), "/".join(two[-length:])
