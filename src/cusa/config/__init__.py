"""The configuration as strict pydantic models: which keys exist and what they mean.

`read_file` and `read_arguments` read YAML strictly, and `load` turns the merged mapping into a `Configuration`. If
there are problems, they raise `ConfigurationError` with one sentence per problem, which names the line or the key. A
test checks that config/README.md documents exactly the keys of these models.
"""

from cusa.config.configuration import Configuration, load
from cusa.config.experiments import RunConfiguration
from cusa.config.files import merge, merge_onto_default, read_arguments, read_file, read_files
from cusa.config.losses import LossConfiguration
from cusa.config.named_files import check_files
from cusa.config.section import validate

__all__ = [
    "Configuration",
    "LossConfiguration",
    "RunConfiguration",
    "check_files",
    "load",
    "merge",
    "merge_onto_default",
    "read_arguments",
    "read_file",
    "read_files",
    "validate",
]
