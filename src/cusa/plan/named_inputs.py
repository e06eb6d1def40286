"""The user's files that are inputs of jobs, and names that a workflow cannot use."""

from __future__ import annotations

from cusa.errors import ConfigurationError
from cusa.plan.plan import Plan
from cusa.plan.search import SearchPlan


def named_inputs(plan: Plan, search: SearchPlan) -> list[str]:
    """The paths of the data set's files, checkpoints, Python files, benchmarks' tables and a table to search."""
    return [
        *plan.dataset_files,
        *(each.path for each in plan.configuration.active_checkpoints.values()),
        *(file for name in plan.benchmarks for file in plan.benchmark_files(name)),
        *(file for owner in plan.written_texts.values() for file in plan.text_sources(owner)),
        *(file for run in plan.runs for file in plan.student_files(run)),
        *search.own_gallery_files,
    ]


def require_plain_names(plan: Plan, search: SearchPlan) -> None:
    """Raise ConfigurationError for a file with braces in its path: the workflow takes a word in them for a wildcard."""
    if found := [name for name in named_inputs(plan, search) if "{" in name and "}" in name]:
        raise ConfigurationError(
            f"{found[0]} has braces in its path, which the workflow takes for a wildcard; rename the file or its "
            "folder."
        )
