# Results that were copied without times, for instance by `cp -r`. Snakemake compares the times of inputs and outputs, and
# would make nearly everything again.
from functools import cache

from snakemake.io import ancient
from snakemake.logging import logger

from cusa.common.files import read_json
from cusa.common.times import is_newer, is_same, lost_times, newest_time, set_times
from cusa.plan.snakemake_records import read_record, recorded_outputs

# The folders that belong together: they were copied together or not at all.
RESULTS_HERE = [folder for folder in (DATA, BENCHMARK_LOGS) if os.path.isdir(folder)]


@cache
def records():
    """The path of the record of each output. There may be many thousands, so they are listed once."""
    return dict(recorded_outputs())


def recorded_times():
    """The time of each output under RESULTS_HERE when Snakemake made it."""
    here = tuple(f"{folder}/" for folder in RESULTS_HERE)
    times = {
        output: read_record(record).get("endtime")
        for output, record in records().items()
        if output.startswith(here)
    }
    return {output: time for output, time in times.items() if time is not None}


def restore_times():
    """Give results that have lost their times the recorded ones, or one time for all if there is no record.

    False if that is not possible, for instance because they are read-only.
    """
    if any(Path(".snakemake/locks").glob("*")):
        return True  # another Snakemake is making them
    recorded = recorded_times()
    if lost_times(recorded):
        return set_times(recorded)
    if recorded or (time := newest_time(RESULTS_HERE)) is None:
        return True
    logger.info(
        f"{' and '.join(RESULTS_HERE)} came without Snakemake's records (.snakemake), so all that is there is taken to "
        "be up to date; --forcerun RULE makes again what a rule made."
    )
    paths = [path for folder in RESULTS_HERE for path in Path(folder).rglob("*")]
    return set_times({str(path): time for path in paths})


PROBLEMS = PLAN.folder.annotations / "problems.json"


def is_touched(path):
    """Whether a file that the annotations are made from is newer than they are."""
    return os.path.isfile(path) and is_newer(path, PROBLEMS)


@cache
def is_converted(path):
    """Whether a file is still the one that was converted."""
    return is_same(path, read_json(PROBLEMS).get("files", {}).get(path, {}))


def users_file(path):
    """A file that the annotations are made from; its time is ignored if its content has not changed."""
    return ancient(path) if is_touched(path) and is_converted(path) else path


def is_data_set_changed():
    """Whether a file that the annotations are made from is newer than they are, and another one than was converted."""
    return any(
        is_touched(path) and not is_converted(path) for path in PLAN.dataset_files
    )


if os.path.isdir(".snakemake") and not os.access(".snakemake", os.W_OK):
    stop(
        f"{os.getcwd()}/.snakemake cannot be written, and Snakemake writes there even in a dry run; make a folder of your "
        f"own with a link to the results (ln -s {shlex.quote(os.path.abspath('results'))}), and run there."
    )
TIMES_ARE_RIGHT = not workflow.is_main_process or restore_times()


def ancient_if_moved(files):
    """Inputs whose times are ignored if results have lost them; `inputflags` does not reach inherited rules."""
    return files if TIMES_ARE_RIGHT else ancient(files)
