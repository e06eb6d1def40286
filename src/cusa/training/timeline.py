"""Measures the time of each part of a training step, on the device's own clock.

A GPU works later than the program that queues its work, so the program's clock would measure the wrong time. Instead,
events in the GPU's queue record when the GPU reaches them. Nothing waits for the GPU until `seconds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cusa.layout import Modality
from cusa.training.loop import Trainer

Part = Literal["data", "image tower", "text tower", "heads and loss", "gather", "optimiser", "host"]
# `host` is the time in no other part: that of the program itself, and on a GPU its idle time.
PARTS: tuple[Part, ...] = ("data", "image tower", "text tower", "heads and loss", "gather", "optimiser", "host")


class Timeline:
    """The moments at which one part of a step ends and another begins."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.part: Part = "host"
        self.marks: list[tuple[Any, Part]] = [(self._now(), "host")]
        self._last_touch: Any = None

    def mark(self, part: Part) -> Part:
        """Count the time from now on for `part`. Returns the part before."""
        before, self.part = self.part, part
        self.marks.append((self._now(), part))
        return before

    def touch(self, *_: object) -> None:
        """Note this moment, for `mark_since_touch`."""
        self._last_touch = self._now()

    def mark_since_touch(self, part: Part) -> None:
        """Time belongs to `part` since the last `touch`, if there was one since the last call."""
        if self._last_touch is not None:
            self.marks.append((self._last_touch, part))
            self.part, self._last_touch = part, None

    @contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """A block whose time belongs to `part`."""
        before = self.mark(part)
        try:
            yield
        finally:
            self.mark(before)

    def seconds(self) -> dict[Part, float]:
        """The seconds of each part until now; waits for the device."""
        marks = [*self.marks, (self._now(), self.part)]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        for (start, part), (end, _) in pairwise(marks):
            seconds[part] += self._between(start, end)
        return seconds

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start  # type: ignore[no-any-return]


@contextmanager
def timed(trainer: Trainer) -> Iterator[Timeline]:
    """A block in which the steps of a trainer are divided into parts; data are marked by who asks for them.

    The forward pass of a tower is the time of its call. The backward pass goes the other way: gradients reach the
    losses, the heads, and then one tower after the other, and a hook on each tower's features marks when its turn has
    come. What follows the last gradient is the gathering of gradients if there are several processes, then the
    optimiser.
    """
    timeline, task = Timeline(trainer.group.device), trainer.task
    several = trainer.group.world_size > 1
    undo = [
        _wrap(task, "tower_features", _tower(timeline)),
        _wrap(task, "heads", _phase(timeline, "heads and loss")),
        _wrap(task, "losses", _losses(timeline)),
    ]
    hooks = [
        parameter.register_post_accumulate_grad_hook(timeline.touch)  # type: ignore[no-untyped-call]
        for parameter in task.parameters()
        if parameter.requires_grad
    ]

    def start_optimiser(*_: object) -> None:
        timeline.mark_since_touch("gather" if several else "optimiser")
        timeline.mark("optimiser")

    hooks.append(trainer.optimiser.register_step_pre_hook(start_optimiser))
    hooks.append(trainer.optimiser.register_step_post_hook(_marking(timeline, "host")))
    try:
        yield timeline
    finally:
        for hook in hooks:
            hook.remove()
        for each in undo:
            each()


Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


def _wrap(owner: nn.Module, name: str, wrapper: Wrapper) -> Callable[[], None]:
    """Replace a method of one object; returns what undoes it."""
    setattr(owner, name, wrapper(getattr(owner, name)))
    return lambda: delattr(owner, name)


def _marking(timeline: Timeline, part: Part) -> Callable[..., None]:
    """A hook that marks a part, and changes nothing."""

    def mark(*_: object) -> None:
        timeline.mark(part)

    return mark


def _phase(timeline: Timeline, part: Part) -> Wrapper:
    def wrapper(method: Callable[..., Any]) -> Callable[..., Any]:
        def timed_method(*arguments: Any, **named: Any) -> Any:
            with timeline.of(part):
                return method(*arguments, **named)

        return timed_method

    return wrapper


def _tower(timeline: Timeline) -> Wrapper:
    def wrapper(method: Callable[..., Any]) -> Callable[..., Any]:
        def timed_method(side: Modality, inputs: Any) -> Any:
            part: Part = "image tower" if side == "image" else "text tower"
            with timeline.of(part):
                features: Tensor = method(side, inputs)
            if features.requires_grad:
                features.register_hook(_marking(timeline, part))  # type: ignore[no-untyped-call]
            return features

        return timed_method

    return wrapper


def _losses(timeline: Timeline) -> Wrapper:
    def wrapper(method: Callable[..., Any]) -> Callable[..., Any]:
        def timed_method(*arguments: Any, **named: Any) -> Any:
            with timeline.of("heads and loss"):
                losses = method(*arguments, **named)
            for term in (losses.contrastive, losses.cross, losses.uni):
                if term.requires_grad:
                    term.register_hook(_marking(timeline, "heads and loss"))
            return losses

        return timed_method

    return wrapper
