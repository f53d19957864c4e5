"""Sums and means over the processes of a training; of one process, they are its own numbers."""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm


def count_of_processes() -> int:
    """Number of processes that have joined."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of ``values``, of which all processes have as many; without gradient."""
    processes = count_of_processes()
    if processes == 1:
        return values
    values = values.detach().clone()
    distributed.all_reduce(values)
    return values / processes


class SumOverProcesses(Function):
    """Sum of a tensor over the processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        distributed.all_reduce(grad)
        return grad


class SyncBatchNormOfCPUs(_BatchNorm):
    """What ``nn.SyncBatchNorm`` is on GPUs, outside of which PyTorch refuses that class."""

    def _check_input_dim(self, input: Tensor) -> None:
        """As ``nn.SyncBatchNorm``, it takes maps of any dimension."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) by the statistics of the batches of all processes."""
        if not self.training or count_of_processes() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims, shape = [i for i in range(x.ndim) if i != 1], [1, -1] + [1] * (x.ndim - 2)
        own = x.new_full((1,), x.numel() / x.shape[1])
        count, total = SumOverProcesses.apply(torch.cat([own, x.sum(dims)])).split([1, x.shape[1]])
        mean = total / count
        centred = x - mean.view(shape)
        var = SumOverProcesses.apply(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self._keep(mean.detach(), var.detach() * (count / (count - 1)).detach())
        x = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(input.dtype)

    def _keep(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)
