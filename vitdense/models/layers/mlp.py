"""Feed-forward networks of transformer blocks."""

from torch import Tensor, nn
from torch.nn import functional as F

from .fast.linear import Linear, by_rows
from .fast.recompute import recompute
from .layout import to_map, to_tokens


class Mlp(nn.Module):
    """Two linear layers with a GELU between them; it brings the norm before them, too.

    For the backward pass its input and that of the GELU are kept, the rest is computed again.
    """

    def __init__(self, channels: int, hidden_channels: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(channels, hidden_channels)
        self.fc2 = Linear(hidden_channels, channels)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, norm: nn.Module, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) of a map ``hw``, through ``norm`` first, to (B, N, C)."""
        hidden = recompute(lambda x: self.expand(norm(x), hw), x)
        return recompute(self.contract, hidden, self.random)

    def expand(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Everything before the GELU: (B, N, C) to (B, N, C')."""
        return self.fc1(x)

    def contract(self, hidden: Tensor) -> Tensor:
        """The GELU and everything after it: (B, N, C') to (B, N, C)."""
        return self.drop(self.fc2(self.drop(F.gelu(hidden))))

    def of_rows(self, x: Tensor, norm: nn.Module) -> Tensor:
        """The same for a network that treats tokens one by one: only its input is kept.

        On a CPU, as many tokens at once as fit in cache.
        """
        return by_rows(
            lambda piece: recompute(lambda x: self.contract(self.fc1(norm(x))), piece, self.random),
            x,
            self.fc1.out_features,
        )

    @property
    def random(self) -> bool:
        """Whether dropout makes the result random."""
        return self.training and self.drop.p > 0


class DepthwiseConv(nn.Module):
    """3 x 3 depth-wise convolution over tokens, zero padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) to (B, N, C)."""
        return to_tokens(self.dwconv(to_map(x, hw)))[0]


class ConvMlp(Mlp):
    """The convolutional feed-forward of PVTv2 (section 3.3): a depth-wise convolution before the GELU.

    ``relu`` puts a ReLU before the convolution, as the released linear variant has it.
    """

    def __init__(self, channels: int, hidden_channels: int, drop: float = 0.0, relu: bool = False) -> None:
        super().__init__(channels, hidden_channels, drop)
        self.dwconv = DepthwiseConv(hidden_channels)
        self.relu = relu

    def expand(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        x = self.fc1(x)
        return self.dwconv(F.relu(x) if self.relu else x, hw)


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
