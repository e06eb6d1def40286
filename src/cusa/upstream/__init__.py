"""Reading the files that the authors of the paper published: configurations, image features, checkpoints.

The files are not trusted. Features are unpickled by a reader that can build only arrays of floats; checkpoints are
loaded as tensors and plain values.
"""

from cusa.upstream.checkpoints import import_checkpoint, load_checkpoint
from cusa.upstream.configurations import loss_config, read_config
from cusa.upstream.features import export_features, import_features, load_features

__all__ = [
    "export_features",
    "import_checkpoint",
    "import_features",
    "load_checkpoint",
    "load_features",
    "loss_config",
    "read_config",
]
