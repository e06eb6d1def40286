# Snakemake's messages about jobs: only the keys that have changed, instead of complete sections of the configuration
# before and now, and the progress of running jobs.
import logging
import signal
import threading

from snakemake.logging import DefaultFormatter, is_quiet_about, logger, timestamp
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from cusa.plan.failed_jobs import FailedJobs, job_name
from cusa.plan.reasons import changed_keys
from cusa.plan.running_jobs import Bars, Job, Lines, RunningJobs

# Resources that are parts of a command; see `train`.
PARTS_OF_COMMANDS = ("script", "operation", "configuration")
# What Snakemake says between jobs and after a job that has failed; the messages at the end have what the job wrote.
# Before the jobs, it says what every run says, as nobody has to install what envs/ and the containers have.
NOT_SHOWN = (
    "Using shell: ",
    "Rules claiming more threads will be scaled down.",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Select jobs to execute...",
    "RuleException:\nCalledProcessError",
    "Exiting because a job execution failed.",
)
STREAM = "DefaultStreamHandler"  # Snakemake's name of what writes on the screen
LOGS = [Path(DATA) / "logs", Path(BENCHMARK_LOGS) / "logs"]  # the folders of logs
RUNNING = RunningJobs()
FAILED = FailedJobs()
INTERRUPTED = threading.Event()


def name_of(record):
    """The name of a job, as in the messages at the end: experiment and seed and data, model and split."""
    log = next(map(Path, record.log), None)
    return job_name(log, LOGS) if log else record.rule_name


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
            FAILED.started(record.log)
        elif event == LogEvent.JOB_FINISHED:
            RUNNING.end(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            RUNNING.end(record.jobid)
            FAILED.failed(record.log, record.rule_msg)
        elif event in (None, LogEvent.ERROR):
            FAILED.read(record.getMessage())
            self.translate(record)
        # Jobs that Ctrl-C has stopped are not errors. The messages at the end tell what they have saved.
        return not (INTERRUPTED.is_set() and record.levelno >= logging.ERROR)

    def translate(self, record):
        """Say what to do about a lock, with the user's own command, and what is there if nothing has to be done."""
        message = record.getMessage()
        if message.startswith("Nothing to be done") and not workflow.dryrun:
            record.args, record.msg = (), "\n".join([message, *results_of_targets()])
        elif message.startswith("LockException"):
            record.args = ()
            record.msg = (
                f"{Path.cwd()} is locked: another run makes the same files, or one was killed (kill -9, a power loss). "
                f"Wait for the other run. If there is none, remove the lock with\n    {COMMAND} --unlock\n"
                "and then run the same command again; what was finished stays."
            )

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
        return Job(name_of(record), log, output.parent if output else None)


class OneLineForEachJob(DefaultFormatter):
    """On the screen, one line says that a job has ended. Snakemake's own formatter and scheduler write five."""

    def __init__(self, quiet, show_failed_logs):
        super().__init__(quiet, show_failed_logs)
        self.names = {}
        self.ended = []

    def filter(self, record):
        """Whether a record has a line of its own; remembers the names of jobs."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            parts = [record.rule_name, *name_of(record).split("/")]
            self.names[record.jobid] = " ".join(dict.fromkeys(parts))
        elif event == LogEvent.JOB_FINISHED:
            self.ended.append(self.names[record.job_id])
        elif event == LogEvent.JOB_ERROR:
            say([f"{timestamp()} failed: {self.names[record.jobid]}"])
        return event not in (
            LogEvent.JOB_FINISHED,
            LogEvent.JOB_STARTED,
        ) and not record.getMessage().startswith(NOT_SHOWN)

    def format_progress(self, msg):
        names, self.ended = ", ".join(self.ended), []
        return f"{timestamp()} {super().format_progress(msg)}: {names}"


def show_a_line_for_each_job():
    """Replace what Snakemake writes between jobs, unless it is told to say more or less."""
    settings = workflow.output_settings
    handler = next((each for each in logger.handlers if each.name == STREAM), None)
    quiet = settings.quiet or []
    if (
        handler is None
        or type(handler.formatter).__name__ == OneLineForEachJob.__name__
    ):
        return
    if Quietness.RULES in quiet and not settings.dryrun:
        lines = OneLineForEachJob(quiet, settings.show_failed_logs)
        handler.filters.insert(0, lines)
        handler.setFormatter(lines)


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
# Before the rules are planned, because Snakemake says some of what is not shown before any hook.
show_a_line_for_each_job()
