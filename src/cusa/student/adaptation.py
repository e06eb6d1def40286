"""Parameter-efficient training: selects the weights of a student that `student.adapt` trains.

The other weights are the base. They stay as they were loaded, and neither the state of a training nor best.safetensors
contains them. A digest of their values shows whether a loaded base is the one of the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import nn

from cusa.config.adaptation import Adaptation, SideAdaptation
from cusa.errors import ConfigurationError
from cusa.student.adapters import add_adapters
from cusa.student.backbones import Backbone
from cusa.student.sides import Side, sides_with_a_tower

NORMALISATION = nn.modules.batchnorm._BatchNorm


class Base:
    """The weights of a backbone that stay as they were loaded, by their names before adapters were added."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self.weights = dict(weights)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights in the order of their names, each after its name."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.weights.items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def adapt(backbone: Backbone, settings: Adaptation) -> Base:
    """Freeze the weights that are not trained, add the adapters, and return the frozen weights.

    All weights of a side that `settings` do not name are trained. A weight that both sides use is trained if one of
    them trains it. Raises ConfigurationError if the settings do not fit the model.
    """
    before = {weight: weight.requires_grad for weight in backbone.parameters()}
    named = dict(backbone.named_parameters(remove_duplicate=False))
    sides: dict[str, Side] = {name: Side.of(backbone, name) for name in sides_with_a_tower(backbone)}
    trained: set[nn.Parameter] = set()
    for name, side in sides.items():
        trained |= _chosen(side, settings.sides[name]) if name in settings.sides else set(side.weights.values())
    frozen = {weight for weight in backbone.pretrained_parameters() if weight not in trained}
    for name, chosen in settings.sides.items():
        if chosen.lora is not None:
            add_adapters(sides[name], chosen.lora, trained | _named(sides[name], "frozen", chosen.frozen))
    for weight in backbone.parameters():  # peft has frozen all but the adapters
        weight.requires_grad_(before.get(weight, True) and weight not in frozen)
    return Base({name: weight for name, weight in named.items() if weight in frozen})


def frozen_normalisation(backbone: Backbone) -> list[nn.Module]:
    """The BatchNorm layers none of whose weights is trained.

    They stay in eval mode: in train mode they would change their statistics, and normalise by the batch.
    """
    return [
        module
        for module in backbone.modules()
        if isinstance(module, NORMALISATION) and not any(weight.requires_grad for weight in module.parameters())
    ]


def _chosen(side: Side, settings: SideAdaptation) -> set[nn.Parameter]:
    """The weights of a side that are trained themselves."""
    chosen = set(side.weights.values()) if settings.trains_all_but_frozen else set()
    if settings.last_layers is not None:
        chosen |= {side.weights[name] for name in side.weights_of_last(settings.last_layers)}
    chosen |= _named(side, "names", settings.names)
    return chosen - _named(side, "frozen", settings.frozen)


def _named(side: Side, key: str, patterns: Sequence[str]) -> set[nn.Parameter]:
    """The weights of a side that patterns name. Raises ConfigurationError if a pattern names none.

    A pattern names a weight or a module by one or more parts of its dotted name; `*` stands for any characters.
    """
    found = set()
    for pattern in patterns:
        matching = {weight for name, weight in side.weights.items() if fnmatchcase(f".{name}.", f"*.{pattern}.*")}
        if not matching:
            raise ConfigurationError(
                f"Configuration key `student.adapt.{side.name}.{key}` names {pattern}, but no weight of the "
                f"{side.name} side has a part of this name. It has, for instance, {side.examples()}."
            )
        found |= matching
    return found
