"""Where shortcuts have to stay away."""

import torch


def is_recorded() -> bool:
    """Whether somebody takes down the operators that run: ``torch.compile``, ``torch.export``, ``torch.jit.trace``.

    What is decided by the device, or kept from an earlier call, would become part of the record. Those who count
    operators by a trace, as fvcore and mmengine do, want PyTorch's own.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
