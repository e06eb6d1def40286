"""Unicom, the image teacher of the paper: the network, with the sizes of its released state dicts.

An et al., Unicom: Universal and Compact Representation Learning for Image Retrieval, ICLR 2023. A vision transformer
without class token. CUSA's published features are its final-norm patch tokens, flattened (37,632 numbers for ViT-B/32).
A small projection head turns them into the embedding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cusa.common.files import expanded, read_tensors, sha256_of_file
from cusa.config.models import ImageModel, UnicomSettings
from cusa.errors import ConfigurationError, DataError
from cusa.teachers.encoders import ImageEncoder
from cusa.teachers.state_dicts import require_finite, state_dict_of
from cusa.teachers.transform import CLIP_MEAN, CLIP_STD, ImageTransform

log = logging.getLogger(__name__)
HEAD_DIMENSION = 64
LAYER_NORM_EPS = 1e-5
BATCH_NORM_EPS = 2e-5
RELEASES = "https://github.com/deepglint/unicom/releases/download"


@dataclass(frozen=True)
class Release:
    """Weights that the authors published."""

    path: str
    sha256: str


RELEASED = {
    "ViT-B/32": Release("b32/FP16-ViT-B-32.pt", "f9d5696a9b58dbbbefee2d31615ca59084f2895a0fdd2ca4c235e0f9b2793f7a"),
    "ViT-B/16": Release("b16/FP16-ViT-B-16.pt", "c04f324f7c3b4435667236ec6c0eca1cd62f9d64fbfc2d06f8e8e60e6497edef"),
    "ViT-L/14": Release("l14/FP16-ViT-L-14.pt", "ff3ab62ff782876460099e6e0ee17b73a7c01109de2fffd595f16f4129404bbd"),
    "ViT-L/14@336px": Release(
        "l14_336px/FP16-ViT-L-14-336px.pt", "3916ab5aed3b522fc90345be8b4457fe5dad60801ad2af5a6871c0c096e8d7ea"
    ),
}


@dataclass(frozen=True)
class Sizes:
    """The sizes of a Unicom network; `tokens` is the number of patches, a square number."""

    dimension: int
    depth: int
    patch: int
    tokens: int
    hidden: int
    embedding: int

    @property
    def input_side(self) -> int:
        """The side of the input in pixels."""
        return math.isqrt(self.tokens) * self.patch


class Attention(nn.Module):
    """Multi-head self-attention in float32, whatever the precision around it, as published."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.heads = dimension // HEAD_DIMENSION
        self.qkv = nn.Linear(dimension, 3 * dimension, bias=False)
        self.proj = nn.Linear(dimension, dimension)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, n, dim] -> [B, n, dim]."""
        with torch.autocast(tokens.device.type, enabled=False):
            batch, count, dimension = tokens.shape
            heads = self.qkv(tokens.float()).view(batch, count, 3, self.heads, HEAD_DIMENSION)
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(query, key, value)
            projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, dimension))
            return projected


class Mlp(nn.Module):
    """Two linear layers with ReLU6 between."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dimension, hidden)
        self.fc2 = nn.Linear(hidden, dimension)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, n, dim] -> [B, n, dim]."""
        mixed: Tensor = self.fc2(F.relu6(self.fc1(tokens)))
        return mixed


class Block(nn.Module):
    """A transformer block with the norms before."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.dimension, LAYER_NORM_EPS)
        self.attn = Attention(sizes.dimension)
        self.norm2 = nn.LayerNorm(sizes.dimension, LAYER_NORM_EPS)
        self.mlp = Mlp(sizes.dimension, sizes.hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, n, dim] -> [B, n, dim]."""
        tokens = tokens + self.attn(self.norm1(tokens))
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


class PatchEmbedding(nn.Module):
    """A convolution as wide as its stride."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, sizes.dimension, sizes.patch, sizes.patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, n, dim]."""
        maps: Tensor = self.proj(pixels)
        return maps.flatten(2).transpose(1, 2)


class Unicom(nn.Module):
    """The network; module names are the keys of the released state dicts."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embed = PatchEmbedding(sizes)
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes.tokens, sizes.dimension))
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.dimension, LAYER_NORM_EPS)
        self.feature = nn.Sequential(
            nn.Linear(sizes.tokens * sizes.dimension, sizes.dimension, bias=False),
            nn.BatchNorm1d(sizes.dimension, BATCH_NORM_EPS),
            nn.Linear(sizes.dimension, sizes.embedding, bias=False),
            nn.BatchNorm1d(sizes.embedding, BATCH_NORM_EPS),
        )

    def tokens(self, pixels: Tensor) -> Tensor:
        """Final-norm patch tokens, flattened, [B, n * dim], of normalised pixels [B, 3, side, side]."""
        side = self.sizes.input_side
        if pixels.shape[1:] != (3, side, side):
            raise ValueError(f"pixels have shape {tuple(pixels.shape)}; expected [B, 3, {side}, {side}]")
        tokens = self.patch_embed(pixels) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        normalised: Tensor = self.norm(tokens)
        return normalised.flatten(1)

    def embedding(self, pixels: Tensor) -> Tensor:
        """Embeddings [B, emb] of normalised pixels [B, 3, side, side]."""
        projected: Tensor = self.feature(self.tokens(pixels))
        return projected

    def forward(self, pixels: Tensor) -> Tensor:
        """The embedding."""
        return self.embedding(pixels)


def load(path: str | Path) -> Unicom:
    """A Unicom network in eval mode from a released state dict (or one of the same layout), float32, on the CPU.

    The tensors may be of any floating-point type; the sizes are theirs. No code in the file is executed. Raises
    DataError when the file is not there, is not a state dict, or has tensors that are missing, unexpected, not
    finite or of another shape.
    """
    state = state_dict_of(read_tensors(expanded(path)), str(path))
    if state is None:
        raise DataError(f"{path} holds something else than a mapping of names to tensors; expected a state dict.")
    require_finite(state, str(path))
    try:
        network = Unicom(read_sizes(state))
        network.load_state_dict(state)
    except (LookupError, RuntimeError, ValueError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:400]
        raise DataError(
            f"{path} is not a Unicom state dict ({type(error).__name__}: {reason}); expected the file of a release of "
            "github.com/deepglint/unicom, or one with the same names."
        ) from None
    return network.float().eval()


def read_sizes(state: Mapping[str, Tensor]) -> Sizes:
    """The sizes of a network by its state dict. Raises KeyError or ValueError if it is of another network."""
    blocks = {int(name.split(".")[1]) for name in state if name.startswith("blocks.")}
    _, tokens, dimension = state["pos_embed"].shape
    if dimension % HEAD_DIMENSION or math.isqrt(tokens) ** 2 != tokens:
        raise ValueError(
            f"pos_embed is [1, {tokens}, {dimension}], but a network has a square number of patches and heads of "
            f"{HEAD_DIMENSION} dimensions"
        )
    return Sizes(
        dimension=dimension,
        depth=len(blocks),
        patch=state["patch_embed.proj.weight"].shape[-1],
        tokens=tokens,
        hidden=state["blocks.0.mlp.fc1.weight"].shape[0],
        embedding=state["feature.2.weight"].shape[0],
    )


def weights_path(settings: UnicomSettings) -> Path:
    """The path of the weights: the configured one, or that of the released file, which is downloaded once.

    Raises ConfigurationError if the released file cannot be fetched, or has another sha256.
    """
    if settings.weights is not None:
        return expanded(settings.weights)
    release = RELEASED[settings.model]
    path = Path(torch.hub.get_dir()) / "cusa" / Path(release.path).name
    if not path.is_file():
        url = f"{RELEASES}/{release.path}"
        log.info("downloading %s to %s", url, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=release.sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(
                f"the weights of Unicom {settings.model} could not be fetched from {url} ({error}). Fetch the file "
                "where there is a network and name it in teachers.image.unicom.weights."
            ) from None
    if (digest := sha256_of_file(path)) != release.sha256:
        raise ConfigurationError(
            f"{path} has the sha256 {digest}, but the released file has {release.sha256}; delete it to fetch it again."
        )
    return path


class UnicomTeacher(ImageEncoder):
    """Unicom as an image encoder: its tokens, as published, or its embedding."""

    def __init__(self, settings: UnicomSettings) -> None:
        super().__init__()
        self.weights_file = weights_path(settings)
        self.network = load(self.weights_file)
        sizes, self.kind = self.network.sizes, settings.features
        self.name = settings.identity
        self.dimension = sizes.embedding if self.kind == "embedding" else sizes.tokens * sizes.dimension
        self.transform = ImageTransform(sizes.input_side, sizes.input_side, CLIP_MEAN, CLIP_STD)

    def features(self, pixels: Tensor) -> Tensor:
        """Features [B, dimension] of normalised pixels [B, 3, side, side]."""
        return self.network.embedding(pixels) if self.kind == "embedding" else self.network.tokens(pixels)


def image_encoder(model: ImageModel) -> UnicomTeacher:
    """The configured Unicom teacher."""
    return UnicomTeacher(model.unicom_settings)
