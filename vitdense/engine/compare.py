"""What differs between the parameters of a model and those of a checkpoint."""

import copy
import warnings
from collections.abc import Mapping

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from vitdense.checkpoint.report import Differences


def compare(model: nn.Module, state: Mapping[str, Tensor]) -> Differences:
    """Find what differs by loading ``state`` into an empty copy of ``model``, which has no memory.

    Modules are visited as mmengine does it, because some rename their keys when they load.
    """
    tensors = [*model.parameters(), *model.buffers()]
    empty = copy.deepcopy(model, memo={id(tensor): _without_memory(tensor) for tensor in tensors})
    versions = getattr(state, '_metadata', None) or {}
    found = Differences()

    def load(module: nn.Module, local: dict[str, Tensor], prefix: str = '') -> None:
        metadata = versions.get(prefix[:-1], {})
        module._load_from_state_dict(local, prefix, metadata, True, found.missing, found.unexpected, [])
        for name, own in (*module._parameters.items(), *module._buffers.items()):
            value = local.get(prefix + name)
            if own is not None and isinstance(value, Tensor) and value.shape != own.shape:
                found.shapes[prefix + name] = own.shape, value.shape
        for name, child in module.named_children():
            below = f'{prefix}{name}.'
            load(child, {key: value for key, value in local.items() if key.startswith(below)}, below)

    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*no-op')
        load(empty, dict(state))
    return found


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model itself inside the wrappers of distributed training and of test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _without_memory(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to('meta')
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
