# Snakemake's messages about jobs: only the keys that have changed, instead of complete sections of the configuration
# before and now, and the progress of running jobs.
import logging
import signal
import threading

from snakemake.logging import is_quiet_about, logger
from snakemake_interface_logger_plugins.common import LogEvent

from cusa.plan.reasons import changed_keys
from cusa.plan.running_jobs import Bars, Job, Lines, RunningJobs

# Resources that are parts of a command; see `train`.
PARTS_OF_COMMANDS = ("script", "operation", "configuration")
RUNNING = RunningJobs()
INTERRUPTED = threading.Event()


class Listener(logging.Filter):
    """Shortens messages about jobs, and records which jobs run. After Ctrl-C it hides errors."""

    def __init__(self):
        super().__init__()
        self.jobs = {}

    def filter(self, record):
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            self.shorten(record)
            RUNNING.start(record.jobid, self.described(record))
        elif event == LogEvent.JOB_FINISHED:
            RUNNING.end(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            RUNNING.end(record.jobid)
        # Jobs that Ctrl-C has stopped are not errors. The messages at the end tell what they have saved.
        return not (INTERRUPTED.is_set() and record.levelno >= logging.ERROR)

    def shorten(self, record):
        """Replace the reason of a job by the keys that have changed."""
        dag = workflow.dag
        if record.jobid not in self.jobs:
            self.jobs = {dag.jobid(job): job for job in dag.jobs}
        job = self.jobs.get(record.jobid)
        if job and (change := dag.reason(job).params_changed):
            params = {name: repr(value) for name, value in job.params.items()}
            new = {
                name: text for name, text in params.items() if text in change.only_new
            }
            words = changed_keys(record.rule_name, change.only_old, new)
            record.reason = record.reason.replace(str(change), words)
        record.resources = {
            name: value
            for name, value in record.resources.items()
            if name not in PARTS_OF_COMMANDS
        }

    def described(self, record):
        """The job that a record is about."""
        log, output = (
            next(map(Path, paths), None) for paths in (record.log, record.output)
        )
        # As in the messages at the end: experiment and seed, model and split.
        name = f"{log.parent.name}/{log.stem}" if log else record.rule_name
        return Job(name, log, output.parent if output else None)


def interrupt_once():
    """Let Ctrl-C stop the jobs, which then save their state. A second Ctrl-C would end Snakemake before that."""
    if threading.current_thread() is not threading.main_thread():
        return

    def later(*_):
        say(["The jobs are saving what they have; please wait."])

    def first(*_):
        signal.signal(signal.SIGINT, later)
        INTERRUPTED.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)


def show_running_jobs():
    """Show how far jobs are: in the live view if there is one, else in lines, unless Snakemake is told to be quiet."""
    handlers = workflow.logger_manager.plugin_handlers
    progress = next(
        (view for each in handlers if (view := getattr(each, "progress", None))), None
    )
    if progress is not None:
        RUNNING.watch(Bars(progress))
    elif not is_quiet_about(workflow.output_settings.quiet or [], "progress"):
        RUNNING.watch(Lines(sys.stderr.write))


# A module can be included several times; one filter is enough.
if not any(type(each).__name__ == Listener.__name__ for each in logger.filters):
    logger.addFilter(Listener())
