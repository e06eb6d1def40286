"""The configuration as strict pydantic models, one module a section: which keys exist and what they mean.

`load` turns the mapping that Snakemake merged from YAML files into a `Configuration`, or raises `ConfigurationError`
with one sentence a problem, each naming its key. config/README.md is held to these models by a test.
"""

from cusa.config.configuration import Configuration, check_files, command_line_values, load, merge
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import LossConfiguration
from cusa.config.section import validate

__all__ = [
    "Configuration",
    "LossConfiguration",
    "RunConfiguration",
    "check_files",
    "command_line_values",
    "load",
    "merge",
    "validate",
]
