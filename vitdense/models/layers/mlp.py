"""Feed-forward networks of transformer blocks."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from .fast.light import recomputed
from .fast.linear import Linear, by_rows
from .layout import to_map, to_tokens


class FeedForward(nn.Module):
    """Two linear layers, with a GELU before the second one."""

    def __init__(self, channels: int, hidden_channels: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(channels, hidden_channels)
        self.fc2 = Linear(hidden_channels, channels)
        self.drop = nn.Dropout(drop)

    def feed(self, x: Tensor, expand: Callable[[Tensor], Tensor]) -> Tensor:
        """Tokens (B, N, C) to (B, N, C); ``expand`` is everything before the GELU, to (B, N, C')."""
        return recomputed(lambda x: self.drop(F.gelu(expand(x))), lambda hidden: self.drop(self.fc2(hidden)), x)


class Mlp(FeedForward):
    """The feed-forward network that treats tokens one by one."""

    def forward(self, x: Tensor, hw: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, N, C) to (B, N, C), whatever the map ``hw`` that they make."""
        return by_rows(lambda rows: self.feed(rows, self.fc1), x, self.fc1.out_features)


class DepthwiseConv(nn.Module):
    """3 x 3 depth-wise convolution over tokens, zero padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) to (B, N, C)."""
        return to_tokens(self.dwconv(to_map(x, hw)))[0]


class ConvMlp(FeedForward):
    """The convolutional feed-forward of PVTv2 (section 3.3): a depth-wise convolution before the GELU.

    ``relu`` puts a ReLU before the convolution, as the released linear variant has it.
    """

    def __init__(self, channels: int, hidden_channels: int, drop: float = 0.0, relu: bool = False) -> None:
        super().__init__(channels, hidden_channels, drop)
        self.dwconv = DepthwiseConv(hidden_channels)
        self.relu = relu

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) of a map ``hw`` to (B, N, C)."""
        return self.feed(x, lambda x: self.expand(x, hw))

    def expand(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Everything before the GELU: (B, N, C) to (B, N, C')."""
        x = self.fc1(x)
        if self.relu:
            x = F.relu(x)
        return self.dwconv(x, hw)


class PredictionMlp(nn.Module):
    """Three linear layers with ReLUs between them, which predict the box or the class of a query (DETR, YOLOS)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(channels, width) for width in (channels, channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Queries (..., C) to (..., C')."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
