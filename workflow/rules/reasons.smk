# What Snakemake says of a job: the keys that have changed, instead of whole sections of the configuration before and now.
import logging

from snakemake.logging import logger

from cusa.plan.reasons import changed_keys

# Resources that are parts of a command; see `train`.
PARTS_OF_COMMANDS = ("script", "operation", "configuration")


class ShortReasons(logging.Filter):
    """Shortens what is said of a job; it lets everything pass."""

    def __init__(self):
        super().__init__()
        self.jobs = {}

    def filter(self, record):
        change = self.change_of(record)
        if change:
            record.reason = record.reason.replace(
                str(change), self.in_words(record, change)
            )
        if getattr(record, "resources", None) is not None:
            record.resources = {
                name: value
                for name, value in record.resources.items()
                if name not in PARTS_OF_COMMANDS
            }
        return True

    def change_of(self, record):
        """How the parameters of the job have changed that a record is about; None if it is about none."""
        if not isinstance(getattr(record, "reason", None), str):
            return None
        dag = workflow.dag
        if record.jobid not in self.jobs:
            self.jobs = {dag.jobid(job): job for job in dag.jobs}
        job = self.jobs.get(record.jobid)
        return job and dag.reason(job).params_changed

    def in_words(self, record, change):
        params = self.jobs[record.jobid].params
        now = {name: repr(value) for name, value in params.items()}
        new = {name: text for name, text in now.items() if text in change.only_new}
        return changed_keys(record.rule_name, change.only_old, new)


# Snakemake reads a Snakefile once more where a configuration is changed on the way; one filter is enough.
if not any(type(each).__name__ == ShortReasons.__name__ for each in logger.filters):
    logger.addFilter(ShortReasons())
