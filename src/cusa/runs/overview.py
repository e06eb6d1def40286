"""The runs in results folders: how far each is, how good, how fast, and when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cusa.common.files import read_parquet
from cusa.common.workflow_files import workflow_command
from cusa.errors import DataError
from cusa.runs.live import LiveRun, holder_of, is_alive
from cusa.runs.record import HISTORY, RUN, STATE_FILE, STATE_FOLDER, RunRecord

SHOWN_MESSAGE = 100  # characters of an error


@dataclass(frozen=True)
class RunRow:
    """The state of a run. Values that are not known are None.

    `state` is one of
        finished       its run.json is there
        stopped early  the same, of a trial of a sweep that was hopeless
        not trained    a baseline or an imported checkpoint
        interpolated   weights between those before and after the training of another run; `alpha` is how far
        starting       its process reads the data
        running        its process trains; on another host, it trained at the time `updated`
        stopped        by SIGTERM or Ctrl-C; the same command continues it
        killed         its process ended without writing its end; the same command continues it
        failed         with the error `message`
    `epoch` is the number of epochs that are finished. `pairs_per_second` of a finished run counts all its time.
    `seconds` is the time a finished run took, `seconds_left` the time until an unfinished one has taken its last epoch.
    """

    run: str
    experiment: str
    seed: str
    state: str
    epoch: int | None = None
    epochs: int | None = None
    best_r_mean: float | None = None
    best_epoch: int | None = None
    last_r_mean: float | None = None
    pairs_per_second: float | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    updated: str | None = None
    host: str | None = None
    message: str | None = None
    alpha: float | None = None


def run_folders(folder: str | Path) -> list[Path]:
    """The run folders in a folder: of one data set (results/{dataset}), of all (results), or the folder itself.

    The trials of sweeps are runs too: those of one sweep, or of all of a data set. Raises DataError if there are none.
    """
    folder = Path(folder)
    of_data_set = ("runs/*/seed*", "sweep/*/trials/*/seed*")
    of_sweeps = ("trials/*/seed*", "*/trials/*/seed*")
    patterns = ("", "seed*", "*/seed*", *of_sweeps, *of_data_set, *(f"*/{pattern}" for pattern in of_data_set))
    found = [path for pattern in patterns for path in ([folder] if not pattern else sorted(folder.glob(pattern)))]
    found = [path for path in found if (path / RUN).is_file() or (path / STATE_FOLDER).is_dir()]
    if not found:
        raise DataError(
            f"{folder} has no runs. Expected a folder of results, such as results or results/openmoji, or a run folder "
            f"({{experiment}}/seed{{n}}); `{workflow_command('models')}` trains runs."
        )
    return list(dict.fromkeys(found))


def overview(folders: Sequence[str | Path]) -> Iterator[RunRow]:
    """The state of each run in some folders. Raises DataError if a folder has no runs."""
    for folder in folders:
        for run in run_folders(folder):
            yield row_of(run)


def row_of(run: Path) -> RunRow:
    """The state of one run."""
    live, holder = LiveRun.read(run), holder_of(run)
    alive = is_alive(holder) if holder is not None else False
    under_way = live is not None and live.status == "running" and alive is not False
    if (run / RUN).is_file() and not under_way:
        with suppress(DataError):  # it is being written again, or damaged: then its state says more
            return _finished(run, RunRecord.read(run))
    host = str(holder["host"]) if holder is not None and alive is None and "host" in holder else None
    experiment, seed = run.absolute().parent.name, run.absolute().name.removeprefix("seed")
    if live is None:
        state = "starting" if alive else "stopped" if (run / STATE_FOLDER / STATE_FILE).is_file() else "not finished"
        return RunRow(str(run), experiment, seed, state, host=host)
    state = live.status if live.status != "running" else "killed" if alive is False else "running"
    return RunRow(
        run=str(run),
        experiment=experiment,
        seed=seed,
        state=state,
        epoch=live.epoch,
        epochs=live.epochs,
        best_r_mean=live.best_r_mean,
        best_epoch=live.best_epoch,
        last_r_mean=live.last_r_mean,
        pairs_per_second=live.pairs_per_second if state == "running" else None,
        seconds_left=live.seconds_left,
        updated=live.updated,
        host=host,
        message=live.message[:SHOWN_MESSAGE] if live.message else None,
    )


def _last_r_mean(history: Path) -> float | None:
    """The score of the last epoch; None if no epoch was scored, or the file is not there or damaged."""
    try:
        rows = read_parquet(history).to_pylist()
    except DataError:
        return None
    scores = [row["r_mean"] for row in rows if row.get("r_mean") is not None]
    return scores[-1] if scores else None


def _finished(run: Path, record: RunRecord) -> RunRow:
    # The record of an interpolation has the epochs of the training that it took its weights from.
    is_between = record.configuration.interpolate is not None
    trained = record.training_pairs is not None and record.epochs > 0 and not is_between
    metrics = record.selection_metrics or {}
    pairs = (record.training_pairs or 0) * record.epochs
    made = "interpolated" if is_between else "not trained"
    return RunRow(
        run=str(run),
        experiment=record.configuration.experiment,
        seed=str(record.configuration.seed),
        state=made if not trained else "finished" if record.stopped_because is None else "stopped early",
        epoch=record.epochs if trained else None,
        epochs=record.configuration.train.epochs if trained else None,
        best_r_mean=metrics.get("r_mean"),
        best_epoch=record.selected_epoch if trained else None,
        last_r_mean=None if is_between else _last_r_mean(run / HISTORY),  # whose history has a row for each alpha
        pairs_per_second=pairs / record.seconds if trained and record.seconds > 0 else None,
        seconds=record.seconds if trained or is_between else None,
        updated=record.finished,
        alpha=metrics.get("alpha") if is_between else None,
    )
