"""The configuration as strict pydantic models: which keys exist and what they mean.

`load` turns the mapping that Snakemake merged from YAML files into a `Configuration`. If there are problems, it raises
`ConfigurationError` with one sentence per problem, which names the key. A test checks that config/README.md documents
exactly the keys of these models.
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
