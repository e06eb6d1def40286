"""The captions of an image in groups that stay together, so that a batch encodes an image once for several captions.

With `train.captions_per_image` k, each epoch divides the captions of every image at random into groups of k; the last
group of an image may be smaller. Whole groups are shuffled, and batches are cut from the pairs that follow. So an epoch
still has each (image, caption) pair once, a batch still has `batch_size` pairs, and only a group at the edge of a batch
is cut in two. The order is a function of (seed, epoch).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CaptionGroups:
    """Pairs in groups, each of one image: the group g has the pairs `pairs[starts[g]:ends[g]]`, by number."""

    pairs: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def first(self) -> np.ndarray:
        """A pair of each group, int64 [groups]: a random one of its pairs."""
        first: np.ndarray = self.pairs[self.starts]
        return first

    def laid_out(self, groups: np.ndarray) -> np.ndarray:
        """The pairs of some groups by number, int64 [n], one group after the other: int64 [pairs]."""
        lengths = (self.ends - self.starts)[groups]
        before = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(self.starts[groups] - before, lengths)
        pairs: np.ndarray = self.pairs[places]
        return pairs


def caption_groups(image_of_caption: np.ndarray, largest: int | None, generator: np.random.Generator) -> CaptionGroups:
    """All pairs in random groups of at most `largest` captions of one image; None takes all captions of an image.

    `image_of_caption` has the image of each pair, int64 [pairs].
    """
    pairs = len(image_of_caption)
    shuffled = generator.permutation(pairs)
    by_image = shuffled[np.argsort(image_of_caption[shuffled], kind="stable")]
    image = image_of_caption[by_image]
    first_of_image = np.flatnonzero(np.r_[True, image[1:] != image[:-1]])
    counts = np.diff(np.r_[first_of_image, pairs])
    number = np.arange(pairs) - np.repeat(first_of_image, counts)  # of a caption among its image's
    starts = first_of_image if largest is None else np.flatnonzero(number % largest == 0)
    return CaptionGroups(by_image, starts, np.r_[starts[1:], pairs])


@dataclass
class GroupedOrder:
    """The order of the pairs of an epoch, in which the captions of a group are neighbours; see the module's docstring.

    `image_of_caption` has the image of each pair, int64 [pairs]; `largest` is that of `caption_groups`.
    """

    image_of_caption: np.ndarray
    largest: int | None
    seed: int

    def __call__(self, epoch: int) -> np.ndarray:
        """The numbers of all pairs in the order of an epoch, int64 [pairs]."""
        # The third and the fourth number keep these draws apart from those of other orders.
        generator = np.random.default_rng([self.seed, epoch, 0, self.largest or 0])
        groups = caption_groups(self.image_of_caption, self.largest, generator)
        return groups.laid_out(generator.permutation(len(groups)))
