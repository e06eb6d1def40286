"""Pictures and captions that are changed at random for training, as a function of (seed, epoch, pair) alone.

A trained tower reads pictures and captions that are changed when a batch is made. A frozen tower's changed pictures
and captions were made by the extraction of its features; here one of them, or the original, is drawn for each pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cusa.annotations.caption_variants import caption_variants
from cusa.annotations.tables import SplitTables, cleaning_of
from cusa.common.draws import hashed, uniform
from cusa.config.augmentation import CaptionAugmentation
from cusa.config.captions import CaptionCleaning
from cusa.config.experiments import RunConfiguration
from cusa.config.views import views_of_training
from cusa.layout import DatasetFolder
from cusa.student.backbones import Backbone, TextInput
from cusa.student.inputs import FeatureInputs, PixelInputs, SplitInputs, TokenInputs, open_features
from cusa.teachers.augmentation import DRAWS, AugmentedTransform
from cusa.teachers.encoders import pad_tokens
from cusa.teachers.store import FeatureStore

# The purpose of random numbers: the first key of the function that draws them. Extraction uses 1 and 2.
IMAGE, CAPTION = 3, 4


@dataclass(frozen=True)
class CachedViews:
    """The features of `count` views of each image or caption; view v of the item i has the row i * count + v."""

    features: FeatureStore
    count: int

    def drawn(self, originals: FeatureInputs, items: np.ndarray, hashes: np.ndarray) -> Tensor:
        """For each item, int64 [B], the features of one of its views or its own, each equally often: float32 [B, d].

        `hashes`, uint64 [B], determine which.
        """
        # Whole numbers below 2**53 are exact in float64, so each of them is drawn with the same probability.
        view = (uniform(hashes, 1)[:, 0] * (self.count + 1)).astype(np.int64) - 1
        inputs = torch.empty(len(items), self.features.dimension)
        own = np.flatnonzero(view < 0)
        others = np.flatnonzero(view >= 0)
        inputs[torch.from_numpy(own)] = originals[items[own]]
        rows = items[others] * self.count + view[others]
        inputs[torch.from_numpy(others)] = torch.from_numpy(self.features[rows])
        return inputs


@dataclass(frozen=True)
class CaptionVariants:
    """The captions of a split as they were and cleaned, from which changed captions are made and tokenised."""

    captions: pa.ChunkedArray
    cleaned: pa.ChunkedArray
    cleaning: CaptionCleaning
    settings: CaptionAugmentation
    tokenise: Callable[[Sequence[str]], tuple[list[list[int]], int]]

    def drawn(self, captions: np.ndarray, hashes: np.ndarray) -> dict[str, Tensor]:
        """A changed caption for each of some captions by position, int64 [B]: tokens as TokenInputs has them."""
        rows = pa.array(captions)
        texts, cleaned = (column.take(rows).to_pylist() for column in (self.captions, self.cleaned))
        return pad_tokens(*self.tokenise(caption_variants(texts, cleaned, self.cleaning, self.settings, hashes)))


@dataclass
class PairAugmentation:
    """The random changes of the training pairs, for the epoch that is loaded; by default there are none."""

    seed: int = 0
    pixels: AugmentedTransform | None = None
    image_views: CachedViews | None = None
    captions: CaptionVariants | None = None
    text_views: CachedViews | None = None
    epoch: int = 0

    def image_inputs(self, inputs: PixelInputs | FeatureInputs, images: np.ndarray, pairs: np.ndarray) -> Tensor | None:
        """Changed images, by position, of some pairs, int64 [B] each, see TrainingBatch.images; None if unchanged."""
        if isinstance(inputs, FeatureInputs):
            hashes = hashed(IMAGE, self.seed, self.epoch, pairs)
            return None if self.image_views is None else self.image_views.drawn(inputs, images, hashes)
        if self.pixels is None:
            return None
        # Pairs of one image share its decoding, but each has a view of its own.
        distinct, inverse = np.unique(images, return_inverse=True)
        return self.pixels.views(map(inputs.decoded, distinct), inverse, self._draws(pairs))

    def pixels_of(
        self, images: Sequence[tuple[bytes, bool]], image_of_pair: np.ndarray, pairs: np.ndarray
    ) -> Tensor | None:
        """Changed pictures of some pairs, uint8 [B, 3, H, W]; None if pictures are not changed.

        `images` are (encoded, plain); `image_of_pair`, int64 [B], is the place of each pair's image in them.
        """
        if self.pixels is None:
            return None
        return self.pixels.batch(images, image_of_pair, self._draws(pairs))

    def _draws(self, pairs: np.ndarray) -> np.ndarray:
        return uniform(hashed(IMAGE, self.seed, self.epoch, pairs), DRAWS)

    def text_inputs(self, inputs: TokenInputs | FeatureInputs, captions: np.ndarray) -> TextInput | None:
        """Changed captions by position, int64 [B], see TrainingBatch.texts; None if captions are not changed."""
        hashes = hashed(CAPTION, self.seed, self.epoch, captions)
        if isinstance(inputs, FeatureInputs):
            return None if self.text_views is None else self.text_views.drawn(inputs, captions, hashes)
        return None if self.captions is None else self.captions.drawn(captions, hashes)


def open_augmentation(
    backbone: Backbone, configuration: RunConfiguration, folder: DatasetFolder, inputs: SplitInputs
) -> PairAugmentation:
    """The changes of `train.augmentation` for the train split. Raises DataError if features of views do not fit."""
    settings, views = configuration.train.augmentation, views_of_training(configuration)
    augmentation = PairAugmentation(seed=configuration.seed)
    if settings is None:
        return augmentation
    if views.image is not None:
        store = folder.features("image", views.image.folder, "train")
        rows = len(inputs.images) * views.image.views
        augmentation.image_views = CachedViews(open_features(store, rows, views.image), views.image.views)
    elif settings.image is not None and backbone.image_transform is not None:
        augmentation.pixels = AugmentedTransform(backbone.image_transform, settings.image)
    if views.text is not None:
        store = folder.features("text", views.text.folder, "train")
        rows = len(inputs.image_of_caption) * views.text.views
        augmentation.text_views = CachedViews(open_features(store, rows, views.text), views.text.views)
    elif settings.caption is not None and backbone.tokenises:
        tables = SplitTables.open(folder, "train", captions=["caption", "cleaned"])
        augmentation.captions = CaptionVariants(
            captions=tables.captions["caption"],
            cleaned=tables.captions["cleaned"],
            cleaning=cleaning_of(folder.annotations),
            settings=settings.caption,
            tokenise=backbone.tokenise,
        )
    return augmentation
