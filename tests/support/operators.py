"""What the tests of mmcv's operators share: gradients, comparisons, and an image."""

import torch


def grads(output: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients of a sum of ``output`` in which each value has a weight of its own."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device).view_as(output)
    return torch.autograd.grad((output * weights).sum(), inputs, retain_graph=True)


def assert_same(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def image(device: str, dtype=torch.float64, channels: int = 3) -> torch.Tensor:
    # a shuffled range: no two values are equal, so that a maximum has one place
    values = torch.randperm(2 * channels * 9 * 12, generator=torch.Generator().manual_seed(1))
    return (values / 100).view(2, channels, 9, 12).to(device, dtype).requires_grad_()
