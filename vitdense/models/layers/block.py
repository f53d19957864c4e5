"""The pre-norm transformer block."""

from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn


class Block(nn.Module):
    """``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``, each branch with stochastic depth."""

    def __init__(
        self, channels: int, attn: nn.Module, mlp: nn.Module, drop_path: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, hw: Any) -> Tensor:
        """Tokens (B, N, C) of a map ``hw``, or however a block lays them out, to (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x), hw))
        return x + self.drop_path(self.mlp(self.norm2(x), hw))
