"""LoRA by peft: adapters beside the matrices of a model, and the model with them merged into its matrices.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from cusa.config.adaptation import Lora
from cusa.errors import ConfigurationError
from cusa.student.callable_matrices import original_of, with_callable_matrices
from cusa.student.sides import Side, evaluating

ADAPTER = "default"
BASE_LAYER = ".base_layer"  # what peft calls the module that has an adapter
MATRICES: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)
LONGEST_LIST = 6


def has_name(name: str, pattern: str) -> bool:
    """Whether a pattern is the end of a module's dotted name; `*` stands for any characters."""
    return fnmatchcase(f".{name}", f"*.{pattern}")


def is_adapter(name: str) -> bool:
    """Whether a parameter is one of an adapter, by its name."""
    return ".lora_" in name


def add_adapters(side: Side, lora: Lora, left_out: set[nn.Parameter]) -> None:
    """Put adapters beside the matrices of a side that `lora.modules` names, except those that are `left_out`.

    The first matrix of an adapter is drawn from torch's random state, the second is 0, so the features stay as they
    are. Raises ConfigurationError if peft is not installed, and if a pattern names no matrix that can have an
    adapter.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigurationError(
            f"Configuration key `student.adapt.{side.name}.lora` needs peft; run pip install -e '.[lora]'."
        ) from None
    _replace_uncallable(side)
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=_targets(side, lora, left_out),
    )
    with warnings.catch_warnings():
        # The other side may have adapters already; these are other modules.
        warnings.filterwarnings("ignore", message=".*second time.*")
        inject_adapter_in_model(settings, side.backbone, adapter_name=ADAPTER)
    del side.backbone.peft_config  # otherwise peft treats the other side's adapters as adapters of this model
    _restore_originals(side.backbone, unless_adapted=True)


def merge_adapters(model: nn.Module) -> None:
    """Add each adapter's product to its matrix, and remove the adapters. The model has its original modules again.

    The embeddings change by rounding only.
    """
    if not any(map(is_adapter, _names(model))):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    _restore_originals(model)


def _replace_uncallable(side: Side) -> None:
    """Replace the modules whose matrices cannot have adapters as they are."""
    with evaluating(side.backbone), torch.no_grad():
        for name, (module, inputs) in side.called((nn.MultiheadAttention, nn.Conv2d)).items():
            if (replacement := with_callable_matrices(module, inputs)) is not None:
                side.backbone.set_submodule(name, replacement)


def _restore_originals(model: nn.Module, unless_adapted: bool = False) -> None:
    """Put the modules back that were replaced; with `unless_adapted` only those that have no adapter."""
    for name, module in list(model.named_modules()):
        adapted = name.endswith(BASE_LAYER) or any(map(is_adapter, _names(module)))
        if (original := original_of(module)) is not None and not (unless_adapted and adapted):
            model.set_submodule(name, original)


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def _targets(side: Side, lora: Lora, left_out: set[nn.Parameter]) -> list[str]:
    """The names of the modules that get adapters."""
    possible = {
        name: module
        for name, (module, _) in side.called(MATRICES).items()
        if _can_have_adapter(module) and not left_out.intersection(module.parameters(recurse=False))
    }
    key = f"Configuration key `student.adapt.{side.name}.lora.modules`"
    if lora.modules is None:
        layers = tuple(f"{name}." for name, _ in side.layers())
        targets = [name for name, module in possible.items() if name.startswith(layers) and _is_matrix(module)]
        if not targets:
            raise ConfigurationError(
                f"{key} is null, but the {side.name} side has no linear layer and no 1 x 1 convolution in its layers "
                "that is not trained or frozen itself; name the modules, or leave `lora` out and set last_layers."
            )
        return targets
    for pattern in lora.modules:
        if not any(has_name(name, pattern) for name in possible):
            raise ConfigurationError(
                f"{key} names {pattern}, but no linear layer or convolution without groups that computes the "
                f"{side.name} features, and is not trained or frozen itself, has a name that ends like this. "
                f"{_some(list(possible))}"
            )
    return [name for name in possible if any(has_name(name, pattern) for pattern in lora.modules)]


def _can_have_adapter(module: nn.Module) -> bool:
    """Whether peft can build an adapter; subclasses of convolutions may take other arguments, and pad otherwise."""
    return isinstance(module, nn.Linear) or (type(module) is nn.Conv2d and module.groups == 1)


def _is_matrix(module: nn.Module) -> bool:
    """Whether a module multiplies by one matrix: a linear layer or a 1 x 1 convolution."""
    return isinstance(module, nn.Linear) or module.kernel_size == (1, 1)


def _some(names: Sequence[str]) -> str:
    if not names:
        return "There is none."
    step = max(1, len(names) // LONGEST_LIST)
    return f"Some that can: {', '.join(names[::step][:LONGEST_LIST])}."
