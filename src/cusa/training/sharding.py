"""Students that do not fit one GPU: each process has a share of every weight, of its gradient and of its moments.

This is PyTorch's fully sharded data parallelism (FSDP2; Zhao et al., PyTorch FSDP, VLDB 2023). A layer's weights are
gathered when the layer computes, and freed again. Projections, heads and the loss are small, and scalars cannot be
divided: every process has complete copies of these, and their gradients are averaged after the backward pass.

A divided tensor is a DTensor of the shape of the whole tensor, cut along the first dimension. Functions here take any
tensor, and give those that are not divided back as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cusa.common.compute import AUTOCAST_TYPES
from cusa.config.training import Train
from cusa.errors import ConfigurationError
from cusa.student.adaptation import NORMALISATION, frozen_normalisation
from cusa.student.backbones import Backbone
from cusa.student.sides import lists_of_layers
from cusa.student.student import Student
from cusa.training.distributed import Group


def shard_student(student: Student, settings: Train, group: Group) -> None:
    """Divide the weights of a student's towers among the processes of a group, in place, with train.shard_student.

    No GPU needs room for the whole student: layer after layer goes to the group's device and is divided there. With
    `train.precision` bf16 the weights of layers are gathered in bf16, also those of normalisations, which autocast
    would take in fp32; gradients are summed in fp32. Raises ConfigurationError if the student cannot be divided.
    """
    if group.world_size == 1:
        raise ConfigurationError(
            "Configuration key `train.shard_student`: this is one process, which would have all of the student; start "
            "as many as train.gpus (or cpu_processes) and nodes say, or set shard_student: false."
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    backbone = student.backbone
    require_shardable(backbone)
    frozen = _held_names(student)
    mesh = init_device_mesh(group.device.type, (group.world_size,))
    half = AUTOCAST_TYPES.get(settings.precision)
    policy = MixedPrecisionPolicy(half, torch.float32 if half else None, cast_forward_inputs=False)
    whole = backbone.parameters_after_towers() | {each for each in backbone.parameters() if each.ndim == 0}
    for layers in lists_of_layers(backbone):
        for _, layer in layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True, ignored_params=whole)
    # Weights outside of layers are gathered once for the images and once for the texts. They are freed after both,
    # because the weights change between forward passes (also to their average and back), and no old copy may remain.
    fully_shard(backbone, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    register_fsdp_forward_method(backbone, "tower_features")
    if student.base is not None:
        now = dict(backbone.named_parameters(remove_duplicate=False))
        student.base.weights = {name: now[held] for name, held in frozen.items()}


def require_shardable(backbone: Backbone) -> None:
    """Raise ConfigurationError if processes that see other pictures would end with other statistics (BatchNorm)."""
    frozen = frozen_normalisation(backbone)
    if any(isinstance(part, NORMALISATION) and part not in frozen for part in backbone.modules()):
        raise ConfigurationError(
            "Configuration key `train.shard_student`: the student normalises over the batch (BatchNorm), and each "
            "process would have statistics of its own; leave train.shard_student false, or freeze these layers "
            "(student.adapt)."
        )


def _held_names(student: Student) -> dict[str, str]:
    """For each frozen weight the name that it has in the backbone, by the name that it had before adapters came."""
    if student.base is None:
        return {}
    assert student.base.sha256  # computed now, because later no process has all weights
    held = {weight: name for name, weight in student.backbone.named_parameters()}
    return {name: held[weight] for name, weight in student.base.weights.items()}


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is divided among processes."""
    # The import takes a second, and before it no tensor is divided.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def own_share(tensor: Tensor) -> Tensor:
    """This process's share of a tensor, with the memory of the tensor itself; changing the share changes the tensor."""
    with torch.no_grad():
        share: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
        return share


def gathered(tensor: Tensor) -> Tensor:
    """The whole tensor. Every process has to call this, for the same tensors in the same order."""
    with torch.no_grad():
        whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
        return whole


def divided_like(whole: Tensor, own: Tensor) -> Tensor:
    """A whole tensor, the same in every process, divided as `own` is, on its device. Nothing is communicated."""
    if not is_sharded(own):
        return whole
    from torch.distributed.tensor import DTensor

    assert isinstance(own, DTensor)
    mesh = own.device_mesh
    shares = whole.chunk(mesh.size())
    mine = shares[mesh.get_local_rank()] if mesh.get_local_rank() < len(shares) else whole[:0]
    mine = mine.to(own.device, copy=True)  # the whole tensor may be a mapped file
    shape, stride = own.shape, own.stride()
    return DTensor.from_local(mine, mesh, own.placements, run_check=False, shape=shape, stride=stride)


def divided_state(task: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict of whole tensors, each divided as the tensor of its name in `own` is."""
    return {name: divided_like(value, own[name]) if name in own else value for name, value in task.items()}


def divided_moments(state: Mapping[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state dict of an optimiser of whole tensors, with each moment divided as its parameter is."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    moments = {
        number: {
            name: divided_like(value, parameters[number])
            if isinstance(value, Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return {**state, "state": moments}


def average_whole_gradients(module: nn.Module, group: Group) -> None:
    """Average the gradients of the parameters that every process has whole; those of the others are averaged already.

    Call it after the last backward pass of a step.
    """
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    whole = [gradient for gradient in gradients if not is_sharded(gradient)]
    if not whole:
        return
    together = torch.cat([gradient.reshape(-1) for gradient in whole])
    dist.all_reduce(together)
    together /= group.world_size
    means = torch.split(together, [gradient.numel() for gradient in whole])
    for gradient, mean in zip(whole, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together, a scalar, the same in every process. Nothing waits for a GPU."""
    shares = [own_share(gradient) for gradient in gradients if is_sharded(gradient)]
    norm = nn.utils.get_total_norm([gradient for gradient in gradients if not is_sharded(gradient)])
    if not shares:
        return norm
    square = nn.utils.get_total_norm(shares).square()
    dist.all_reduce(square)
    return (square + norm.square()).sqrt()


def multiply(gradients: Iterable[Tensor], factor: Tensor) -> None:
    """Multiply gradients by a scalar, in place."""
    torch._foreach_mul_([own_share(gradient) for gradient in gradients], factor)
