"""The indexes of a server, each under a name: opened, watched, and opened again when they were rebuilt."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

from cusa.errors import ConfigurationError, CusaError
from cusa.search.query import Query
from cusa.search.searcher import Searcher
from cusa.serve.batching import Batcher
from cusa.serve.engine import Engine, Question, SearchResult
from cusa.serve.monitoring import Monitoring
from cusa.serve.settings import Limits

LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BEFORE_AGAIN = 10.0
SECONDS_KEPT = 60.0  # that an engine is kept for pictures of results that were found before it was replaced
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_CHARACTERS = 64  # of a name
META = "meta.json"


class ServedIndex:
    """One index under its name. `engine` is its present state; queries wait in `batcher`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        limits: Limits,
        monitoring: Monitoring,
        model: Path | None = None,
        device: str | None = None,
    ) -> None:
        self.name, self.folder, self.model, self.device = name, folder, model, device
        self.monitoring = monitoring
        self.problem: str | None = None  # the reason why the index on the disk is not the one that is served
        self._again = 0.0  # the time at which an index that could not be opened is tried again
        self._seen = _signature(folder)
        self.engine = self._open()
        self._replaced: dict[str, tuple[Engine, float]] = {}
        self.batcher: Batcher[Question, SearchResult] = Batcher(
            lambda questions: self.engine.answer(questions),
            limits.batch,
            limits.queue,
            monitoring.batch_size.labels(name).observe,
        )

    @property
    def rows(self) -> int:
        """How many rows can be found."""
        return self.engine.rows

    @property
    def queue_length(self) -> int:
        """How many queries wait for the model."""
        return len(self.batcher)

    def warm_up(self) -> None:
        """Answer a query, so that the first client does not wait for what a model does only once."""
        if self.engine.index.head == "cross" or self.engine.index.modality == "text":
            self.engine.answer([Question(Query(text="a"), 1)])

    def engine_of(self, version: str | None) -> Engine | None:
        """The engine whose fingerprint starts so; None if it is gone. Without `version`, the present one."""
        engines = [self.engine, *(engine for engine, _ in self._replaced.values())]
        return next((engine for engine in engines if engine.fingerprint.startswith(version or "")), None)

    async def watch(self) -> None:
        """Open the index again whenever its meta.json changes, until this is cancelled."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            await self.reload_if_changed()

    async def reload_if_changed(self) -> None:
        """Open the index again if its meta.json has changed; a new one that cannot be opened changes nothing."""
        now = time.monotonic()
        self._replaced = {key: kept for key, kept in self._replaced.items() if now - kept[1] < SECONDS_KEPT}
        signature = await asyncio.to_thread(_signature, self.folder)
        if signature == self._seen and (self.problem is None or now < self._again):
            return
        try:
            engine = await asyncio.to_thread(self._open)
        # A folder that is being written, or was damaged, can fail in any way; the index in memory is not touched by it.
        except Exception as error:  # noqa: BLE001
            self._report(error)
        else:
            if engine.fingerprint != self.engine.fingerprint:
                self._replaced[self.engine.fingerprint] = (self.engine, now)
                self.engine = engine
                self.monitoring.reloads.labels(self.name, "opened").inc()
                LOG.info("%s: the index was rebuilt and is now that of %s rows", self.name, f"{engine.rows:,}")
            self.problem = None
        self._seen, self._again = signature, now + SECONDS_BEFORE_AGAIN

    def _report(self, error: Exception) -> None:
        sentence = str(error) if isinstance(error, CusaError) else f"{type(error).__name__}: {error}"
        if sentence != self.problem:  # opening is tried repeatedly, but logged once
            self.monitoring.reloads.labels(self.name, "failed").inc()
            LOG.error("%s: the index on the disk cannot be opened, the earlier one stays: %s", self.name, sentence)
        self.problem = sentence

    def _open(self) -> Engine:
        """The index as it is on the disk. The loaded model is used again if its weights are the same."""
        searcher = Searcher.open(self.folder, self.model, self.device)
        known: Engine | None = getattr(self, "engine", None)
        same = known is not None and (self.model is not None or searcher.index.model == known.index.model)
        if known is not None and same and known.model.weights_sha256 == searcher.index.model_sha256:
            searcher = Searcher(searcher.index, lambda: known.model)
        return Engine(searcher)


def _signature(folder: Path) -> tuple[int, ...] | None:
    """Numbers that change whenever a file is written again; None if there is none."""
    try:
        status = (folder / META).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def named_folders(arguments: Sequence[str]) -> dict[str, Path]:
    """Names of index folders, given as `FOLDER` or `NAME=FOLDER`.

    A folder that the workflow wrote, {run}/search/{gallery}, is named by its experiment, and others by the last part
    of their path that only they have; if that is not enough, by as many parts as it takes. Raises
    ConfigurationError if names are equal.
    """
    given: list[tuple[str | None, Path]] = []
    for argument in arguments:
        name, separator, path = argument.partition("=")
        if separator and not Path(argument).exists():
            if not NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{argument}: {name!r} is not a valid name of an index; use 1 to 64 letters, digits, '.', '_', '-'."
                )
            given.append((name, Path(path)))
        else:
            given.append((None, Path(argument)))
    candidates = [[name] if name else _names(folder) for name, folder in given]
    named: dict[str, Path] = {}
    for place, (_, folder) in enumerate(given):
        others = [options for number, options in enumerate(candidates) if number != place]
        own = candidates[place]
        chosen = next((option for option in own if not any(option in other for other in others)), own[-1])
        if chosen in named:
            raise ConfigurationError(f"{folder} and {named[chosen]} have the same name; give one as NAME={folder}.")
        named[chosen] = folder
    return named


def _names(folder: Path) -> list[str]:
    """Names that a folder can have, the best first."""
    parts = [re.sub(r"[^A-Za-z0-9._-]", "-", part).lstrip("._-")[:MOST_CHARACTERS] for part in folder.absolute().parts]
    parts = [part for part in parts if part] or ["index"]
    names = parts[::-1]
    if len(parts) >= 5 and parts[-2] == "search" and parts[-5] == "runs":
        experiment, seed, _, gallery = parts[-4:]
        names = [experiment, f"{experiment}-{seed}", f"{experiment}-{seed}-{gallery}"]
    names += ["-".join(parts[-count:])[-MOST_CHARACTERS:].lstrip("._-") for count in range(2, len(parts) + 1)]
    return names
