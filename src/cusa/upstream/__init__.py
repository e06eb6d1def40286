"""Reading what the authors of the paper published: configurations, image features, checkpoints.

None of it is trusted: features are unpickled by a reader that can build nothing but arrays of floats, checkpoints are
read as tensors and plain values.
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
