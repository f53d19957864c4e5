"""What the processes of a run have each for itself, in a checkpoint: the main process saves, but it has only its own.

These are gradients that were gathered and not used yet, where a step of the optimizer takes several batches, the
statistics of batch norms that are not synchronized, and what some models of mmdet remember outside their buffers.
Generators are not among them: every step seeds them anew.
"""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from mmengine.dist import gather_object, get_rank, get_world_size
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from vitdense.models.wrappers import unwrap_model

RankState = dict[str, dict[str, Any]]
"""``gradients`` by the names of parameters, ``buffers`` by their names, ``remembered`` by the paths of attributes."""

REMEMBERED = {
    'BatchSyncRandomResize': ('_input_size',),
    'DynamicRoIHead': (
        *('iou_history', 'beta_history', 'bbox_head.loss_bbox.beta'),
        *('bbox_assigner.pos_iou_thr', 'bbox_assigner.neg_iou_thr', 'bbox_assigner.min_pos_iou'),
    ),
}
"""Attributes of modules of mmdet that change while they are trained and that are no buffers."""


def gather_rank_states(runner: Runner) -> list[RankState]:
    """The states of all processes, which have to call this together; empty where no process has one.

    Returns:
        One for each process, in the main process.
    """
    model = unwrap_model(runner.model)
    state: RankState = {}
    if gradients_wait(runner.optim_wrapper):
        found = ((name, parameter.grad) for name, parameter in model.named_parameters())
        state['gradients'] = {name: gradient.cpu().clone() for name, gradient in found if gradient is not None}
    if get_world_size() > 1 and (buffers := dict(own_buffers(model))):
        state['buffers'] = {name: buffer.cpu().clone() for name, buffer in buffers.items()}
    if remembered := dict(remembered_by(model)):
        state['remembered'] = {path: plain(attrgetter(name)(module)) for path, (module, name) in remembered.items()}
    return (gather_object(state) or []) if state else []


def restore_rank_state(runner: Runner, states: list[RankState]) -> None:
    """Put the state of this process back, where there is one."""
    rank, model = get_rank(), unwrap_model(runner.model)
    state = states[rank] if rank < len(states) else {}
    for name, parameter in model.named_parameters():
        if name in state.get('gradients', {}):
            parameter.grad = state['gradients'][name].to(parameter.device, copy=True)
    with torch.no_grad():
        for name, buffer in own_buffers(model):
            if name in state.get('buffers', {}):
                buffer.copy_(state['buffers'][name])
    for path, (module, name) in remembered_by(model):
        if path in state.get('remembered', {}):
            owner, _, last = name.rpartition('.')
            setattr(attrgetter(owner)(module) if owner else module, last, state['remembered'][path])


def gradients_wait(wrapper: Any) -> bool:
    """Whether gradients were gathered since the last step of an optimizer."""
    if isinstance(wrapper, OptimWrapperDict):
        return any(map(gradients_wait, wrapper.values()))
    return isinstance(wrapper, OptimWrapper) and wrapper._accumulative_counts > 1 and not wrapper.should_update()


def own_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Statistics of batch norms that the processes do not share."""
    for prefix, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            yield from module.named_buffers(prefix, recurse=False)


def remembered_by(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Path of each attribute of ``REMEMBERED`` in a model, with its module and its name there."""
    for prefix, module in model.named_modules():
        for kind in type(module).__mro__:
            for name in REMEMBERED.get(kind.__name__, ()):
                yield f'{prefix}.{name}', (module, name)


def plain(value: Any) -> Any:
    """A copy without numbers of NumPy, which checkpoints are read without."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value
