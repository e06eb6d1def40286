"""Batches in which neighbours meet: pairs whose cached teacher features are near share a batch, as hard negatives.

An epoch still has every (image, caption) pair once. Its order is made again for each epoch, with a random-projection
tree (Dasgupta and Freund, 2008; the directions as in Annoy) over the teacher's features:

1. The pairs are dealt to rounds, so that captions of one image are spread over the rounds: they are right answers to
   each other, not negatives.
2. The pairs of a round are halved again and again, at the median of their features along a line, until each part is a
   group of `hard_negatives.group` pairs. The line goes through two random pairs, and then twice through the centres of
   the halves that it made.
3. The groups are shuffled, and laid one after the other. So a batch is made of several groups, each of neighbours.

With `train.captions_per_image`, groups of captions of one image (see caption_groups.py) take the place of pairs: they
are dealt and halved by the features of their image, or of one of their captions, and stay together.

The features are reduced once to whole numbers of a few dimensions. Sums of their products are below 2**24, so they are
exact in float32 in any order of summation, and the order is a function of (features, seed, epoch) on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cusa.metrics.scores import unit_float64
from cusa.teachers.store import Features
from cusa.training.caption_groups import caption_groups

DIMENSIONS = 128  # of the reduced features
LARGEST = 127  # of their values: 128 dimensions * 127 * (127 + 127) is below 2**24
DEVIATIONS = 4.0  # standard deviations from 0 to the largest value; values further out are clipped
SAMPLE = 4096  # rows that centre and scale are measured on
REFINEMENTS = 2  # of the line that a node is halved along
NODE_SAMPLE = 64  # rows that this line is measured on
BLOCK_BYTES = 256 << 20  # of rows in memory at a time


def reduced(features: Features) -> np.ndarray:
    """Whole numbers from -127 to 127, int8 [rows, at most 128]: the directions of the features, roughly.

    The unit features are centred and projected to random directions, which nearly keeps their distances.
    """
    rows, dimension = len(features), features.dimension
    sample = unit_float64(features[np.linspace(0, rows - 1, min(rows, SAMPLE)).astype(np.int64)])
    centre = sample.mean(axis=0)
    projection = np.eye(dimension)
    if dimension > DIMENSIONS:
        projection = np.random.default_rng(0).standard_normal((dimension, DIMENSIONS))
    projected = (sample - centre) @ projection
    deviation = float(projected.std())
    scale = LARGEST / (DEVIATIONS * deviation) if deviation > 0 else 0.0  # equal rows have no direction
    codes = np.empty((rows, projection.shape[1]), dtype=np.int8)
    step = max(1, BLOCK_BYTES // (8 * dimension))
    for start in range(0, rows, step):
        block = np.arange(start, min(start + step, rows))
        projected = (unit_float64(features[block]) - centre) @ projection
        codes[block] = np.rint(np.clip(projected * scale, -LARGEST, LARGEST))
    return codes


@dataclass
class NeighbourOrder:
    """The order of the pairs of an epoch, in which each `group` pairs in a row are neighbours.

    `codes` are whole numbers, see `reduced`, int8 [n, D]. `row_of_pair` has the row of each pair in `codes`, and
    `image_of_caption` its image, int64 [pairs] both.
    """

    codes: np.ndarray
    row_of_pair: np.ndarray
    image_of_caption: np.ndarray
    group: int
    seed: int
    captions_per_image: int | None = 1  # None takes all captions of an image

    def __call__(self, epoch: int) -> np.ndarray:
        """The numbers of all pairs in the order of an epoch, int64 [pairs]."""
        # The third number keeps these draws apart from those of the order without neighbours.
        generator = np.random.default_rng([self.seed, epoch, self.group])
        if self.captions_per_image == 1:
            return self._order(np.arange(len(self.image_of_caption)), generator)
        captions = caption_groups(self.image_of_caption, self.captions_per_image, generator)
        return captions.laid_out(self._order(captions.first, generator))

    def _order(self, pairs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The places of some pairs by number, int64 [n], in an order where neighbours meet."""
        dealt = deal(self.image_of_caption[pairs], generator)
        rounds = [self._grouped(pairs, members, generator) for members in dealt]
        # The pairs that fill no group come last, so that batches of complete groups cut no group.
        whole = [len(members) // self.group * self.group for members in rounds]
        groups = [members[:end] for members, end in zip(rounds, whole, strict=True)]
        rests = [members[end:] for members, end in zip(rounds, whole, strict=True)]
        return np.concatenate([*groups, generator.permutation(np.concatenate(rests))])

    def _grouped(self, pairs: np.ndarray, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        places = neighbour_groups(self.codes[self.row_of_pair[pairs[members]]], self.group, generator)
        grouped: np.ndarray = members[places]
        return grouped


def deal(image_of_caption: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """The pairs in rounds of about as many pairs as there are images, int64 [n] each and ascending.

    There are as many rounds as an image has captions on average, rounded up. The captions of an image go to
    consecutive rounds in a random order, from a random one on; an image with more captions than rounds has several in
    some of them.
    """
    images, image, counts = np.unique(image_of_caption, return_inverse=True, return_counts=True)
    pairs = len(image_of_caption)
    rounds = -(-pairs // len(images))
    shuffled = generator.permutation(pairs)
    by_image = shuffled[np.argsort(image[shuffled], kind="stable")]
    number = np.arange(pairs) - np.repeat(np.cumsum(counts) - counts, counts)  # of a caption among its image's
    first = generator.integers(rounds, size=len(images))
    round_of_pair = np.empty(pairs, dtype=np.int64)
    round_of_pair[by_image] = (np.repeat(first, counts) + number) % rounds
    dealt = [np.flatnonzero(round_of_pair == each) for each in range(rounds)]
    return [members for members in dealt if len(members)]


def neighbour_groups(codes: np.ndarray, group: int, generator: np.random.Generator) -> np.ndarray:
    """The rows of `codes`, int8 [n, D], in an order where each `group` rows in a row are neighbours: int64 [n].

    The groups are in a random order, but the last one may be smaller.
    """
    rows = len(codes)
    order = generator.permutation(rows)
    nodes = Nodes(np.array([0]), np.array([-(-rows // group)]), group, rows)
    while (nodes.last - nodes.first).max() > 1:
        order = order[nodes.sorted_along(nodes.directions(codes, order, generator), codes, order)]
        nodes = nodes.halves()
    whole = rows // group * group
    groups = order[:whole].reshape(-1, group)
    return np.concatenate([groups[generator.permutation(len(groups))].ravel(), order[whole:]])


class Nodes:
    """The parts of an order of `rows` rows that have been halved equally often.

    Node i has the groups `first[i]` to `last[i]`, int64 [nodes] both, and so their places in the order; the last group
    of all may be smaller. Numbers of groups alone decide where a node ends, so that all nodes are halved at once.
    """

    def __init__(self, first: np.ndarray, last: np.ndarray, group: int, rows: int) -> None:
        self.first, self.last, self.group, self.rows = first, last, group, rows
        self.start = first * group
        self.sizes = np.minimum(last * group, rows) - self.start
        self.node_of_place = np.repeat(np.arange(len(first)), self.sizes)

    def halves(self) -> Nodes:
        """The halves of all nodes; a node of one group stays."""
        middle = (self.first + self.last + 1) // 2
        pairs = np.stack([self.first, middle, middle, self.last], axis=1).reshape(-1, 2)
        first, last = pairs[pairs[:, 0] < pairs[:, 1]].T
        return Nodes(first, last, self.group, self.rows)

    def directions(self, codes: np.ndarray, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The direction that each node is halved along: float32 [nodes, D], whole numbers from -254 to 254.

        It is measured on some rows of the node, evenly from its places. A node of one group has the direction 0.
        """
        count = min(NODE_SAMPLE, int(self.sizes.max()) // 2 * 2)
        shares = (np.arange(count) + generator.random((len(self.sizes), count))) / count
        places = self.start[:, None] + (shares * self.sizes[:, None]).astype(np.int64)
        one = generator.integers(count, size=len(places))
        other = (one + generator.integers(1, count, size=len(places))) % count
        directions = np.empty((len(places), codes.shape[1]), dtype=np.float32)
        step = max(1, BLOCK_BYTES // (4 * count * codes.shape[1]))
        for start in range(0, len(places), step):
            part = slice(start, start + step)
            rows = codes[order[places[part]]].astype(np.float32)
            directions[part] = _direction(rows, one[part], other[part])
        directions[self.last - self.first == 1] = 0.0
        return directions

    def sorted_along(self, directions: np.ndarray, codes: np.ndarray, order: np.ndarray) -> np.ndarray:
        """The places of all rows, sorted within each node along its direction: int64 [rows]; equals stay in order."""
        along = np.empty(self.rows, dtype=np.float32)
        step = max(1, BLOCK_BYTES // (8 * codes.shape[1]))
        for start in range(0, self.rows, step):
            places = slice(start, start + step)
            rows = codes[order[places]].astype(np.float32)
            along[places] = np.einsum("ij,ij->i", rows, directions[self.node_of_place[places]])
        places_in_order: np.ndarray = np.lexsort((along, self.node_of_place))
        return places_in_order


def _direction(rows: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """From one centre to another of each node's rows, float32 [nodes, count, D]: float32 [nodes, D], whole numbers.

    At first the centres are the rows `one` and `other`, int64 [nodes]; then those of the halves that they make.
    """
    nodes = np.arange(len(rows))
    direction = rows[nodes, one] - rows[nodes, other]
    count = rows.shape[1]
    for _ in range(REFINEMENTS):
        along = np.einsum("nij,nj->ni", rows, direction)
        side = np.where(np.argsort(np.argsort(along, axis=1, kind="stable"), axis=1) < count // 2, -1, 1)
        direction = np.einsum("nij,ni->nj", rows, side.astype(np.float32))
        longest = np.abs(direction).max(axis=1, keepdims=True)
        direction = np.rint(direction * (LARGEST / np.where(longest > 0, longest, 1.0)).astype(np.float32))
    result: np.ndarray = direction
    return result
