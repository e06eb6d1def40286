"""Loads models of transformers and of libraries that use it: in float32, with all weights that features need."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from cusa.errors import ConfigurationError
from cusa.teachers.state_dicts import examples, require_finite
from cusa.teachers.weight_files import require_readable

log = logging.getLogger(__name__)


def load_pretrained(source: str) -> tuple[Any, dict[str, str]]:
    """A model of transformers, by name or folder, in eval mode, float32 whatever the type of its file, on the CPU.

    Also returns the problem of each weight that was not read, by its name in the model: it is missing, or has another
    shape. `require_weights` decides whether that matters. Raises ConfigurationError for quantised weights, and for an
    adapter beside the weights.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    require_readable(Path(source))
    is_folder = Path(source).is_dir()
    if is_folder:
        _require_no_adapter(source)
    require_no_quantisation(AutoConfig.from_pretrained(source), source)
    if not is_folder:  # asked after the hub has answered, because it is tried for long if it does not
        _require_no_adapter(source)
    model, information = AutoModel.from_pretrained(
        source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    # Parts with a type of their own, for instance a vision side, are converted here.
    return model.float(), _not_read(source, information)


def _require_no_adapter(source: str) -> None:
    """Raise ConfigurationError if a model has an adapter beside its weights.

    transformers would freeze the weights, and not say which of them are missing; without peft it passes the adapter by.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    if (found := find_adapter_config_file(source)) is None:
        return
    base = "BASE"
    with suppress(OSError, ValueError, LookupError, TypeError):
        base = str(json.loads(Path(found).read_text(encoding="utf-8"))["base_model_name_or_path"])
    raise ConfigurationError(
        f"{source} has an adapter (adapter_config.json), and beside one the weights would stay as they are. Merge it, "
        "and give the folder of the whole model, with its tokeniser and preprocessor_config.json: "
        f"peft.PeftModel.from_pretrained(transformers.AutoModel.from_pretrained({base!r}), {source!r})"
        ".merge_and_unload().save_pretrained('merged'). A folder with all weights of its own that needs no adapter: "
        "remove adapter_config.json (of a model of the hub, in a copy)."
    )


def require_no_quantisation(configuration: Any, source: str) -> None:
    """Raise ConfigurationError if a model's config.json describes quantised weights."""
    quantisation = getattr(configuration, "quantization_config", None)
    if quantisation is not None:
        method = quantisation.get("quant_method", "unknown") if isinstance(quantisation, dict) else quantisation
        raise ConfigurationError(
            f"the weights of {source} are quantised (`quantization_config` in its config.json: {method}), and such "
            "weights cannot be trained. Give the model as it was before, in float32, float16 or bfloat16."
        )


def _not_read(source: str, information: dict[str, Any]) -> dict[str, str]:
    if unexpected := sorted(information["unexpected_keys"]):
        log.info("%s: its file holds %s that this model does not have", source, examples(unexpected, len(unexpected)))
    wrong_shapes = {
        name: f"{name}: {list(found)} in the file, {list(expected)} in the model"
        for name, found, expected in information["mismatched_keys"]
    }
    # A program that wraps a model puts a prefix before each name.
    named = {
        name: next((other for other in unexpected if other.endswith(f".{name}")), None)
        for name in information["missing_keys"]
    }
    missing = {name: name if named[name] is None else f"{name}: {named[name]} in the file" for name in sorted(named)}
    return missing | wrong_shapes


@contextmanager
def recorded_loading() -> Iterator[dict[str, str]]:
    """The weights that were not read, as `load_pretrained` gives them, of models that another library loads in the
    block.

    Such a library does not pass on this information, so it is recorded here each time transformers loads a model.
    """
    from transformers import PreTrainedModel

    not_read: dict[str, str] = {}
    load = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def recorded(model_class: Any, *arguments: Any, **keywords: Any) -> Any:
        keywords |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, information = load(model_class, *arguments, **keywords)
        not_read.update(_not_read(str(arguments[0]), information))
        return model

    with patch.object(PreTrainedModel, "from_pretrained", classmethod(recorded)):
        yield not_read


@contextmanager
def recorded_state_dicts() -> Iterator[list[tuple[nn.Module, list[str]]]]:
    """Each module that reads a state dict in the block, and the names that the state dict lacks."""
    read: list[tuple[nn.Module, list[str]]] = []
    load = nn.Module.load_state_dict

    def recorded(module: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        result = load(module, *arguments, **keywords)
        read.append((module, list(result.missing_keys)))
        return result

    with patch.object(nn.Module, "load_state_dict", recorded):
        yield read


def used_weights(module: nn.Module, names: Iterable[str], outputs: Callable[[], Iterable[Tensor]]) -> list[str]:
    """Those of the named weights on which the outputs depend; buffers of floating-point numbers count as used.

    `outputs` computes the module's outputs for any input.
    """
    parameters, state = dict(module.named_parameters(remove_duplicate=False)), module.state_dict()
    buffers = [name for name in names if name not in parameters and name in state]
    wanted = {name: parameters[name] for name in names if name in parameters and parameters[name].is_floating_point()}
    used = {name for name in buffers if state[name].is_floating_point()}
    if wanted:
        with torch.enable_grad(), _not_frozen(wanted.values()):
            total = torch.stack([output.float().sum() for output in outputs()]).sum()
            gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        used |= {name for name, gradient in zip(wanted, gradients, strict=True) if gradient is not None}
    return [name for name in names if name in used]


@contextmanager
def _not_frozen(weights: Iterable[Tensor]) -> Iterator[None]:
    """Let outputs depend on frozen weights too in the block, as those of adapters are."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def require_weights(
    source: str, module: nn.Module, not_read: dict[str, str], outputs: Callable[[], Iterable[Tensor]]
) -> None:
    """Raise ConfigurationError, with count and examples, if weights that outputs depend on were not read.

    They have random values then. Weights that no output depends on, such as those of another task's head, are only
    logged. Raises DataError if weights are not finite.
    """
    require_finite(module.state_dict(), source)
    if not not_read:
        return
    if used := used_weights(module, not_read, outputs):
        found = examples([not_read[name] for name in used], len(module.state_dict()))
        raise ConfigurationError(
            f"{source}: {found} are missing in its file of weights, or have another name or shape there, and would be "
            "random. Give a folder whose weights belong to its config.json."
        )
    log.info("%s: %s are not in its file, and nothing uses them", source, examples(list(not_read), len(not_read)))
