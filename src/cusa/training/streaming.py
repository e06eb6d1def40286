"""Training pairs from shards on another machine, read one after the other from any URL that webdataset opens.

Only the index.parquet of the split is on this machine. Reading in sequence is weaker than reading rows of a local disk:

- The order of shards is random, and pairs are shuffled within a buffer. They are not shuffled over the whole split.
- An epoch is a number of steps. Each process and each loader worker reads its own shards, and starts again when it has
  read all of them. So a pair may occur twice in an epoch, or not at all.
- The order depends on the number of processes and workers. A run that is interrupted within an epoch continues with
  other pairs than an uninterrupted run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from cusa.config.shards import Stream
from cusa.config.training import Train
from cusa.errors import ConfigurationError
from cusa.shards.reading import ShardReader, StreamedImage, read_shards
from cusa.teachers.transform import ImageTransform
from cusa.training.batches import TrainingBatch, TrainingPairs
from cusa.training.distributed import Group


class StreamedPairs(IterableDataset[TrainingBatch]):
    """An endless sequence of training batches for one process; seed, epoch and first step determine the order."""

    def __init__(
        self,
        *,
        stream: Stream,
        reader: ShardReader,
        transform: ImageTransform,
        pairs: TrainingPairs,
        caption_rows: np.ndarray,
        settings: Train,
        seed: int,
        group: Group,
    ) -> None:
        """`pairs` gives texts and teacher features, which are local, by position.

        `caption_rows` are the captions' rows in the captions table, int64 [pairs], ascending. Raises
        ConfigurationError if there are fewer shards than readers.
        """
        self.stream, self.reader, self.transform, self.pairs = stream, reader, transform, pairs
        self.caption_rows = caption_rows
        self.batch_size, self.seed = settings.batch_size, seed
        self.rank, self.world_size = group.rank, group.world_size
        self.epoch = self.first_step = 0
        self.shards = np.unique(reader.shard)
        readers = group.world_size * max(1, settings.workers)
        if len(self.shards) < readers:
            raise ConfigurationError(
                f"Configuration key `stream`: {len(self.shards)} shards cannot be shared out to {readers} readers "
                f"({group.world_size} processes x {max(1, settings.workers)} workers); lower train.workers, or write "
                "smaller shards (shards.samples_per_shard)."
            )

    def start_at(self, epoch: int, step: int) -> None:
        """Choose the epoch and the step that the next iteration starts with; both count from 0."""
        self.epoch, self.first_step = epoch, step

    def __iter__(self) -> Iterator[TrainingBatch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        own_shards = slice(self.rank * workers + number, None, self.world_size * workers)
        shuffled = self._shuffled(own_shards)
        while True:
            yield self._batch([next(shuffled) for _ in range(self.batch_size)])

    def _pairs(self, own_shards: slice) -> Iterator[tuple[StreamedImage, int]]:
        """(image, row of the caption) of every pair in some of the shuffled shards, again and again."""
        round_number = 0
        while True:
            generator = np.random.default_rng([self.seed, self.epoch, self.first_step, round_number])
            shards = generator.permutation(self.shards)[own_shards].tolist()
            for image in read_shards(self.stream, self.reader, shards):
                for caption in image.caption_rows:
                    yield image, caption
            round_number += 1

    def _shuffled(self, own_shards: slice) -> Iterator[tuple[StreamedImage, int]]:
        from webdataset.filters import shuffle

        size, seeds = self.stream.shuffle_buffer, (self.seed, self.epoch, self.first_step, own_shards.start)
        shuffled: Iterator[tuple[StreamedImage, int]] = shuffle(size, initial=size, rng=random.Random(str(seeds)))(
            self._pairs(own_shards)
        )
        return shuffled

    def _batch(self, pairs: list[tuple[StreamedImage, int]]) -> TrainingBatch:
        images = np.array([image.position for image, _ in pairs])
        captions = np.searchsorted(self.caption_rows, np.array([row for _, row in pairs]))
        # Captions of one image in a batch share one decoded image.
        _, first_pairs, inverse = np.unique(images, return_index=True, return_inverse=True)
        distinct = [pairs[number][0] for number in first_pairs]
        encoded = [(image.encoded, self.reader.plain(image.position)) for image in distinct]
        pixels = self.pairs.augmentation.pixels_of(encoded, inverse, captions)
        if pixels is None:
            pixels = self.transform.batch(encoded)[torch.from_numpy(inverse)]
        return self.pairs.batch(images, captions, pixels)
