"""Steps in mixed precision, on GPUs and on CPUs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import OptimWrapper
from torch import nn

from vitdense.registry import OPTIM_WRAPPERS

HALVES = {'float16': torch.float16, 'bfloat16': torch.bfloat16}


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMEngineAmpOptimWrapper):
    """mmengine's wrapper of an optimizer for mixed precision, which is for GPUs only, on CPUs as well.

    Args:
        optimizer: the optimizer.
        loss_scale: factor of the loss for float16, a number, 'dynamic', or arguments of ``torch.amp.GradScaler``;
            bfloat16 has the range of float32 and needs none.
        dtype: 'float16' or 'bfloat16'; by default float16 on GPUs and bfloat16 on CPUs, for which CPUs have operators.
        use_fsdp: whether the gradients are sharded.
        accumulative_counts: steps of which gradients are summed up.
        clip_grad: arguments of ``torch.nn.utils.clip_grad_norm_``, or with ``type='value'`` of ``clip_grad_value_``.

    Raises:
        ValueError: another ``dtype`` or ``loss_scale``, or one that the device does not have.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loss_scale: float | str | Mapping[str, Any] = 'dynamic',
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        OptimWrapper.__init__(self, optimizer, accumulative_counts, clip_grad)
        self.device = get_device()
        self.cast_dtype = half_of(dtype, self.device)
        self._scale_update_param = float(loss_scale) if isinstance(loss_scale, int | float) else None
        if self._scale_update_param is not None:
            settings: dict[str, Any] = dict(init_scale=self._scale_update_param)
        elif isinstance(loss_scale, Mapping):
            settings = dict(loss_scale)
        elif loss_scale == 'dynamic':
            settings = {}
        else:
            raise ValueError(
                f"optim_wrapper.loss_scale: expected a number, 'dynamic' or a dict for GradScaler, found {loss_scale!r}"
            )
        settings = {'device': self.device, 'enabled': self.cast_dtype == torch.float16, **settings}
        if use_fsdp:
            from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

            self.loss_scaler: torch.amp.GradScaler = ShardedGradScaler(**settings)
        else:
            self.loss_scaler = torch.amp.GradScaler(**settings)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Forward in mixed precision; of accumulated gradients, only the last are exchanged."""
        with OptimWrapper.optim_context(self, model), torch.autocast(self.device, self.cast_dtype):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """As in mmengine; a state without a loss scale, of bfloat16 or of float32, leaves the scale as it is."""
        if not state_dict.get('loss_scaler'):
            state_dict = {key: value for key, value in state_dict.items() if key != 'loss_scaler'}
        super().load_state_dict(state_dict)


def half_of(dtype: str | torch.dtype | None, device: str) -> torch.dtype:
    """The half type that is meant by ``dtype``, on 'cuda', 'cpu', ...

    Raises:
        ValueError: it is none, or the device does not have it.
    """
    if dtype is None:
        return torch.bfloat16 if device == 'cpu' else torch.get_autocast_dtype(device)
    half = HALVES.get(str(dtype).removeprefix('torch.'))
    if half is None:
        raise ValueError(f'optim_wrapper.dtype: expected float16 or bfloat16, found {dtype!r}')
    if device == 'cuda' and half == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        raise ValueError(f'optim_wrapper.dtype: {torch.cuda.get_device_name()} has no bfloat16, take float16')
    return half
