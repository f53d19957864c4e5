"""The floor of a step: the time of its matrix products and convolutions alone.

No implementation of a model does with less, unless its products are faster. So the time of a step over its floor tells
how much there is to gain, which the ratio to another implementation does not.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDS = 3
"""Times that a product is computed; the fastest counts."""

IN_CACHE = 2**18
"""Most attention weights of a head that are computed at once, as a fused kernel does it."""

aten = torch.ops.aten
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, '_linear_pointwise', None)  # not on every processor
_ROWS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1}
"""Operators of products, and which of their arguments is the first factor."""


class Operand(NamedTuple):
    """What a tensor is, without its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> 'Operand':
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    @classmethod
    def plain(cls, shape: tuple[int, ...], dtype: torch.dtype) -> 'Operand':
        return cls.of(torch.empty(shape, dtype=dtype, device='meta'))

    @property
    def transposed(self) -> 'Operand':
        *outer, rows, columns = self.shape
        *steps, down, along = self.stride
        return Operand((*outer, columns, rows), (*steps, along, down), self.dtype)

    def random(self, device: str) -> Tensor:
        # values that are zero or denormal would be faster or slower
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device).normal_()


class Product(NamedTuple):
    """A product of matrices (..., N, K) and (..., K, M), or, with ``convolution``, of a map and a kernel.

    Attributes:
        first, second: its factors.
        gradients: whether the backward pass computes that of the first, and that of the second.
        convolution: stride, padding, dilation, transposed, output padding and groups.
    """

    first: Operand
    second: Operand
    gradients: tuple[bool, bool]
    convolution: tuple[Any, ...] | None = None


def products_of(step: Callable[[], Any], backward: bool) -> Counter[Product]:
    """The products of the forward pass in ``step``, and how often each is computed; attention counts by heads and rows.

    Args:
        step: is called once.
        backward: whether it has a backward pass, whose products follow from those of the forward pass: what is
            computed a second time is not counted.
    """
    seen = _Seen(backward)
    with seen:
        step()
    return seen.products


def floor(products: Counter[Product], device: str) -> float:
    """Seconds of all ``products`` one after another, each with the fastest of the libraries that PyTorch has."""
    return sum(count * _seconds(product, device) for product, count in products.items())


class _Seen(TorchDispatchMode):
    def __init__(self, backward: bool) -> None:
        super().__init__()
        self.backward = backward
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode come operators that are made of others
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        result = func(*args, **kwargs)
        if torch._C._current_autograd_node() is None:  # of the forward pass
            packet = func.overloadpacket
            if packet in _ROWS:
                first, second = args[_ROWS[packet] :][:2]
                # what an autograd function splits into pieces does not say any more that it needs a gradient
                needs = [x.requires_grad or not torch.is_grad_enabled() for x in (first, second)]
                self._count(Operand.of(first), Operand.of(second), needs)
            elif packet is _ONEDNN_LINEAR:
                rows, weight = args[:2]
                self._count(Operand.of(rows), Operand.of(weight).transposed, [rows.requires_grad, weight.requires_grad])
            elif packet is aten.convolution:
                image, kernel, _, *arguments = args
                options = tuple(tuple(a) if isinstance(a, list) else a for a in arguments)
                needs = [image.requires_grad, kernel.requires_grad]
                self._count(Operand.of(image), Operand.of(kernel), needs, options)
            elif 'scaled_dot_product' in str(packet):
                self._count_attention(*args[:3])
        return result

    def _count(
        self, first: Operand, second: Operand, needs: list[bool], convolution: tuple[Any, ...] | None = None
    ) -> None:
        if math.prod(first.shape) and math.prod(second.shape):
            to_first, to_second = needs
            gradients = (self.backward and to_first, self.backward and to_second)
            self.products[Product(first, second, gradients, convolution)] += 1

    def _count_attention(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        *outer, queries, width = q.shape
        keys = k.shape[-2]
        rows = max(1, min(queries, IN_CACHE // keys))
        times = math.ceil(math.prod(outer) * queries / rows)
        both = (self.backward, self.backward)
        plain = Operand.plain
        self.products[Product(plain((rows, width), q.dtype), plain((keys, width), q.dtype).transposed, both)] += times
        self.products[Product(plain((rows, keys), q.dtype), plain((keys, v.shape[-1]), q.dtype), both)] += times


def _seconds(product: Product, device: str) -> float:
    return sum(min(_fastest(way, device) for way in ways) for ways in _calls(product, device))


def _calls(product: Product, device: str) -> Iterator[list[Callable[[], Any]]]:
    """The product and its gradients, each in all the ways in which it can be computed."""
    a, b = product.first.random(device), product.second.random(device)
    to_a, to_b = product.gradients
    if product.convolution is not None:
        arguments = product.convolution
        out = aten.convolution(a, b, None, *arguments)
        yield [lambda: aten.convolution(a, b, None, *arguments)]
        if to_a or to_b:
            mask = [to_a, to_b, False]
            yield [lambda: aten.convolution_backward(out, a, b, None, *arguments, mask)]
        return
    yield _ways(a, b)
    out = a @ b
    if to_a:
        yield _ways(out, b.mT)
    if to_b:
        yield _ways(a.mT, out)


def _ways(a: Tensor, b: Tensor) -> list[Callable[[], Tensor]]:
    ways = [lambda: torch.matmul(a, b)]
    if a.ndim == 2 and a.device.type == 'cpu' and a.dtype == torch.float32 and _ONEDNN_LINEAR is not None:
        rows, columns = a.contiguous(), b.t().contiguous()  # as the operator would copy them itself, slowly
        ways.append(lambda: _ONEDNN_LINEAR(rows, columns, None, 'none', [], ''))
    return ways


def _fastest(way: Callable[[], Any], device: str) -> float:
    """Seconds of a call, of many where one is too short for the clock."""
    way()
    best, calls = math.inf, 1
    for _ in range(ROUNDS):
        seconds = _clocked(way, calls, device)
        if seconds * calls < 1e-3:
            calls = min(1000, max(1, int(1e-3 / max(seconds, 1e-6))))
        best = min(best, seconds)
    return best


def _clocked(way: Callable[[], Any], calls: int, device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        way()
    _wait(device)
    return (time.perf_counter() - start) / calls


def _wait(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
