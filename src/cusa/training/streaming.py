"""Shards that are not on this machine: read one after the other from any URL that webdataset opens.

Only index.parquet of the split is here. What sequential reading gives up, against reading by row from a local disk:

- Pairs are shuffled within a buffer, after the order of shards; not over the whole split.
- An epoch is a number of steps. Processes and loader workers have shards of their own, so one that runs out starts
  over while another has not come to its end: a pair may come twice in an epoch, or not at all.
- The order depends on the number of processes and workers, and a run that was interrupted within an epoch continues
  with other pairs of it than it would have had.
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
    """Training batches without end for one process, in an order that seed, epoch and first step give."""

    def __init__(
        self,
        stream: Stream,
        reader: ShardReader,
        transform: ImageTransform,
        pairs: TrainingPairs,
        caption_rows: np.ndarray,
        settings: Train,
        seed: int,
        group: Group,
    ) -> None:
        """`pairs` gives what is not streamed, texts and teacher features by position; `caption_rows` [pairs] are the
        captions' rows, ascending.

        Raises ConfigurationError when there are fewer shards than readers.
        """
        self.stream, self.reader, self.transform, self.pairs = stream, reader, transform, pairs
        self.caption_rows = caption_rows
        self.batch_size, self.seed = settings.batch_size, seed
        self.process, self.processes = group.process, group.processes
        self.epoch = self.first_step = 0
        self.shards = np.unique(reader.shard)
        readers = group.processes * max(1, settings.workers)
        if len(self.shards) < readers:
            raise ConfigurationError(
                f"Configuration key `stream`: {len(self.shards)} shards cannot be shared out to {readers} readers "
                f"({group.processes} processes x {max(1, settings.workers)} workers); lower train.workers, or write "
                "smaller shards (shards.samples_per_shard)."
            )

    def start_at(self, epoch: int, step: int) -> None:
        """Where the next iteration starts."""
        self.epoch, self.first_step = epoch, step

    def __iter__(self) -> Iterator[TrainingBatch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        mine = slice(self.process * workers + number, None, self.processes * workers)
        shuffled = self._shuffled(mine)
        while True:
            yield self._batch([next(shuffled) for _ in range(self.batch_size)])

    def _pairs(self, mine: slice) -> Iterator[tuple[StreamedImage, int]]:
        again = 0
        while True:
            generator = np.random.default_rng([self.seed, self.epoch, self.first_step, again])
            for image in read_shards(self.stream, self.reader, generator.permutation(self.shards)[mine].tolist()):
                for caption in image.caption_rows:
                    yield image, caption
            again += 1

    def _shuffled(self, mine: slice) -> Iterator[tuple[StreamedImage, int]]:
        from webdataset.filters import shuffle

        size, seeds = self.stream.shuffle_buffer, (self.seed, self.epoch, self.first_step, mine.start)
        mixed: Iterator[tuple[StreamedImage, int]] = shuffle(size, initial=size, rng=random.Random(str(seeds)))(
            self._pairs(mine)
        )
        return mixed

    def _batch(self, chosen: list[tuple[StreamedImage, int]]) -> TrainingBatch:
        images = np.array([image.position for image, _ in chosen])
        captions = np.searchsorted(self.caption_rows, np.array([row for _, row in chosen]))
        _, first, where = np.unique(images, return_index=True, return_inverse=True)
        distinct = [chosen[place][0] for place in first]
        pixels = self.transform.batch([(image.encoded, self.reader.plain(image.position)) for image in distinct])
        return self.pairs.batch(images, captions, pixels[torch.from_numpy(where)])
