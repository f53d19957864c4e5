"""What ``torch.use_deterministic_algorithms`` asks of back ends that add in no fixed order."""

import warnings

import torch


def alert_not_deterministic(backend: str) -> None:
    """Call it where threads race to add up gradients: atomic additions of floats come in any order.

    Raises:
        RuntimeError: ``torch.use_deterministic_algorithms`` is on; under ``warn_only`` it is a warning.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        f'The backward of ms_deform_attn with the back end {backend!r} does not have a deterministic implementation, '
        "but you set 'torch.use_deterministic_algorithms(True)'. On the CPU it has one; or set warn_only=True if "
        'gradients may be rounded otherwise in each run.'
    )
    if torch.is_deterministic_algorithms_warn_only_enabled():
        warnings.warn(message, stacklevel=2)
    else:
        raise RuntimeError(message)
