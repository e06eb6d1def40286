"""The two sides of a backbone: which weights compute its image features and which its text features, and their layers.

Models name their parts as they like, so nothing here goes by names: a side's weights are those that its features have
a gradient for, and the weights behind a layer are those that still have one when the graph is cut at that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cusa.errors import ConfigurationError
from cusa.layout import Modality
from cusa.student.backbones import Backbone
from cusa.teachers.encoders import pad_tokens

CONTAINERS = (nn.ModuleList, nn.Sequential)
SHORTEST_CAPTION = "a"


def has_weights(module: nn.Module) -> bool:
    """Whether a module has any parameter."""
    return next(module.parameters(), None) is not None


def lists_of_layers(
    backbone: nn.Module,
    kinds: tuple[type[nn.Module], ...] = CONTAINERS,
    shortest: int = 2,
    is_layer: Callable[[nn.Module], bool] = has_weights,
) -> Iterator[list[tuple[str, nn.Module]]]:
    """The lists of layers (blocks, stages) of a backbone, each layer with its name in the backbone.

    A list is a container of `kinds` with at least `shortest` modules of one class for which `is_layer` is true. Lists
    within such a list are not lists of their own.
    """
    within: tuple[str, ...] = ()
    for name, module in backbone.named_modules():
        if not isinstance(module, kinds) or name.startswith(within):
            continue
        layers = [(f"{name}.{key}", part) for key, part in module.named_children() if is_layer(part)]
        is_list = len(layers) >= shortest and len({type(part) for _, part in layers}) == 1
        if is_list and not isinstance(layers[0][1], nn.ModuleList):  # which is applied by its elements
            within = (*within, f"{name}.")
            yield layers


@dataclass(frozen=True)
class Side:
    """One side of a backbone, `image` or `text`.

    `weights` are the pre-trained weights that its features depend on, by their name in the backbone. `features`
    computes the features of some input, [1, D].
    """

    name: str
    backbone: Backbone
    weights: Mapping[str, nn.Parameter]
    features: Callable[[], Tensor]

    @classmethod
    def of(cls, backbone: Backbone, name: str) -> Side:
        """The side `image` or `text` of a backbone that has a tower there.

        Raises ConfigurationError if it has no pre-trained weights.
        """
        features = partial(_image_features if name == "image" else _text_features, backbone)
        pretrained = backbone.pretrained_parameters()
        named = {name: each for name, each in backbone.named_parameters(remove_duplicate=False) if each in pretrained}
        used = _weights_used(backbone, named, lambda: [features()])
        if not used:
            raise ConfigurationError(
                f"Configuration key `student.adapt`: the student does not say which of its {name} weights are "
                "pre-trained (`pretrained_parameters`), so nothing is known that could be frozen; leave `adapt` out."
            )
        return cls(name, backbone, {name: named[name] for name in used}, features)

    def layers(self) -> list[tuple[str, nn.Module]]:
        """The layers (blocks, stages) that the side consists of, in order, with their names in the backbone.

        They are the elements of a list of modules of one class; of several such lists that are not within each other,
        of the one with the most weights. A list of one module counts if there is no longer one. Raises
        ConfigurationError if there is none.
        """
        of_mine = partial(lists_of_layers, self.backbone, is_layer=self._has_weights)
        lists = [*of_mine()] or [*of_mine(kinds=(nn.ModuleList,), shortest=1)]
        if not lists:
            raise ConfigurationError(
                f"Configuration key `student.adapt.{self.name}`: the model has no list of layers of one kind; name the "
                f"weights or modules to train with `names` or `lora.modules`. It has, for instance, {self.examples()}."
            )
        return max(lists, key=lambda layers: sum(self._size(part) for _, part in layers))

    def weights_of_last(self, count: int) -> set[str]:
        """The names of the weights of the last `count` layers, and of what follows them.

        Weights that earlier layers use too are not among them. Raises ConfigurationError if there are fewer layers.
        """
        layers = [layer for _, layer in self.layers()]
        if count > len(layers):
            raise ConfigurationError(
                f"Configuration key `student.adapt.{self.name}.last_layers` is {count}, but the {self.name} side has "
                f"{len(layers)} layers; give at most as many."
            )
        cut: list[Tensor] = []

        def cut_inputs(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return _cut(inputs, cut), _cut(named, cut)

        def cut_output(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            return _cut(output, cut)

        if count:
            hook = layers[-count].register_forward_pre_hook(cut_inputs, with_kwargs=True)
        else:
            hook = layers[-1].register_forward_hook(cut_output)
        try:
            after = set(self._used_by(lambda: [self.features()]))
            before = set(self._used_by(lambda: cut))
        finally:
            hook.remove()
        return after - before

    def _used_by(self, outputs: Callable[[], Sequence[Tensor]]) -> list[str]:
        """The names of the weights that outputs depend on."""
        return _weights_used(self.backbone, self.weights, outputs)

    def called(self, kinds: tuple[type[nn.Module], ...]) -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
        """The modules of some kinds that compute the features, by name, and what they were called with.

        Others may have weights that are read without calling them.
        """
        found: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {}
        hooks = [
            module.register_forward_hook(partial(_note, found, name))
            for name, module in self.backbone.named_modules()
            if isinstance(module, kinds) and self._has_weights(module)
        ]
        with evaluating(self.backbone), torch.no_grad():
            try:
                self.features()
            finally:
                for hook in hooks:
                    hook.remove()
        return found

    def _has_weights(self, module: nn.Module) -> bool:
        mine = set(self.weights.values())
        return any(weight in mine for weight in module.parameters())

    def _size(self, module: nn.Module) -> int:
        mine = set(self.weights.values())
        return sum(weight.numel() for weight in module.parameters() if weight in mine)

    def examples(self) -> str:
        """A few names of weights, to be quoted in a message."""
        names = list(self.weights)
        return ", ".join([names[0], names[len(names) // 2], names[-1]])


def sides_with_a_tower(backbone: Backbone) -> list[Modality]:
    """The sides that are not frozen towers, which are not part of a student at all."""
    images: list[Modality] = [] if backbone.image_transform is None else ["image"]
    return [*images, "text"] if backbone.tokenises else images


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A block in which a module is in eval mode; afterwards each of its parts is in the mode of before."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _weights_used(
    backbone: Backbone, weights: Mapping[str, nn.Parameter], outputs: Callable[[], Sequence[Tensor]]
) -> list[str]:
    """The names of those weights that outputs have a gradient for, in their order."""
    with evaluating(backbone), torch.enable_grad():
        sums = [output.sum() for output in outputs() if output.requires_grad]
        wanted = {name: weight for name, weight in weights.items() if weight.requires_grad}
        if not sums or not wanted:
            return []
        gradients = torch.autograd.grad(torch.stack(sums).sum(), list(wanted.values()), allow_unused=True)
    return [name for name, gradient in zip(wanted, gradients, strict=True) if gradient is not None]


def _image_features(backbone: Backbone) -> Tensor:
    transform = backbone.image_transform
    assert transform is not None
    return backbone.image_features(torch.zeros(1, 3, transform.crop, transform.crop, dtype=torch.uint8))


def _text_features(backbone: Backbone) -> Tensor:
    return backbone.text_features(pad_tokens(*backbone.tokenise([SHORTEST_CAPTION])))


def _note(
    found: dict[str, tuple[nn.Module, tuple[Any, ...]]], name: str, module: nn.Module, inputs: tuple[Any, ...], _: Any
) -> None:
    found[name] = (module, inputs)


def _cut(value: Any, cut: list[Tensor]) -> Any:
    """A layer's inputs or outputs without their graph; `cut` gets them with it."""
    if isinstance(value, Tensor):
        cut.append(value)
        return value.detach()
    if isinstance(value, tuple):
        return tuple(_cut(part, cut) for part in value)
    if isinstance(value, list):
        return [_cut(part, cut) for part in value]
    if isinstance(value, dict):
        return {name: _cut(part, cut) for name, part in value.items()}
    return value
