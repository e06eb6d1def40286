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
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from cusa.common.distinct import distinct_rows
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
        self.batch_size, self.seed, self.largest = settings.pairs_per_batch, seed, settings.largest_caption_group
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
        pairs = ((image, caption) for image, captions in shuffled for caption in captions)
        while True:
            yield self._batch([next(pairs) for _ in range(self.batch_size)])

    def _groups(self, own_shards: slice) -> Iterator[tuple[StreamedImage, Sequence[int]]]:
        """(image, rows of captions) in some of the shuffled shards, again and again.

        With `train.captions_per_image` 1 each pair is alone; otherwise the captions of an image are in random groups.
        """
        round_number = 0
        while True:
            generator = np.random.default_rng([self.seed, self.epoch, self.first_step, round_number])
            shards = generator.permutation(self.shards)[own_shards].tolist()
            for image in read_shards(self.stream, self.reader, shards):
                captions = list(image.caption_rows)
                if self.largest != 1:
                    captions = generator.permutation(captions).tolist()
                size = self.largest or max(1, len(captions))
                for start in range(0, len(captions), size):
                    yield image, captions[start : start + size]
            round_number += 1

    def _shuffled(self, own_shards: slice) -> Iterator[tuple[StreamedImage, Sequence[int]]]:
        from webdataset.filters import shuffle

        # The buffer counts pairs, and has the images of as many.
        captions_per_image = max(1, len(self.caption_rows) // max(1, len(self.reader)))
        size = max(1, self.stream.shuffle_buffer // min(self.largest or captions_per_image, captions_per_image))
        seeds = (self.seed, self.epoch, self.first_step, own_shards.start)
        shuffled: Iterator[tuple[StreamedImage, Sequence[int]]] = shuffle(
            size, initial=size, rng=random.Random(str(seeds))
        )(self._groups(own_shards))
        return shuffled

    def _batch(self, pairs: list[tuple[StreamedImage, int]]) -> TrainingBatch:
        images = np.array([image.position for image, _ in pairs])
        captions = np.searchsorted(self.caption_rows, np.array([row for _, row in pairs]))
        # Captions of one image in a batch share one decoded image.
        distinct = distinct_rows(images)
        first, rows = distinct
        encoded = [(pairs[number][0].encoded, self.reader.plain(images[number])) for number in first]
        of_pair = np.arange(len(images)) if rows is None else rows
        changed = self.pairs.augmentation.pixels_of(encoded, of_pair, captions)
        return self.pairs.batch(
            images, captions, distinct, self.transform.batch(encoded) if changed is None else changed
        )
