"""Stochastic depth (Huang et al. 2016, section 3)."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes whole samples of a residual branch with probability ``rate`` and rescales the rest, in training only."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'drop path rate must be in [0, 1), got {rate}')
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, ...) to the same shape."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f'rate={self.rate:.4f}'
