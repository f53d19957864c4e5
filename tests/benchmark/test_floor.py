"""The products of a step, against the count of PyTorch's own counter of operations."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vitdense.benchmark.floor import Product, floor, products_of
from vitdense.models.backbones import PVTv2, Swin, ViT


def operations(product: Product) -> int:
    """Multiplications and additions of a product and its gradients, each of which takes as many."""
    *outer, rows, inner = product.first.shape
    if product.convolution is None:
        once = 2 * math.prod(outer) * rows * inner * product.second.shape[-1]
    else:
        stride, padding, *_ = product.convolution
        hw = [
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(product.first.shape[2:], padding, product.second.shape[2:], stride, strict=True)
        ]
        once = 2 * product.first.shape[0] * math.prod(hw) * math.prod(product.second.shape)
    return once * (1 + sum(product.gradients))


class Plain(nn.Module):
    """A convolution, a layer and attention whose weights are computed."""

    def __init__(self, groups: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(12, 12, 3, padding=1, groups=groups)
        self.qkv = nn.Linear(12, 36, bias=False)
        self.proj = nn.Linear(12, 7)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(self.stem(image)).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(2, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.mT).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize('backward', [False, True])
@pytest.mark.parametrize('frozen', [False, True])
def test_counts_what_pytorch_counts(backward, frozen):
    groups = 1 if backward else 12  # it counts the gradient of a kernel with groups as if there were none
    model, image = Plain(groups), torch.randn(2, 3, 9, 14)
    model.stem.requires_grad_(not frozen)

    def step() -> None:
        with torch.set_grad_enabled(backward):
            out = model(image)
        if backward:
            out.sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    found = products_of(step, backward)
    assert sum(count * operations(product) for product, count in found.items()) == counter.get_total_flops()


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_no_mode_hides_a_product(mode):
    model, image = Plain(), torch.randn(1, 3, 8, 8)
    with mode():
        found = products_of(lambda: model(image), backward=False)
    with FlopCounterMode(display=False) as counter:
        model(image)
    assert sum(count * operations(product) for product, count in found.items()) == counter.get_total_flops()
    assert {p.gradients for p in found} == {(False, False)}


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize(
    'build',
    [
        lambda **kwargs: Swin('tiny', **kwargs),
        lambda **kwargs: PVTv2('b0', **kwargs),
        lambda **kwargs: ViT('tiny', depth=2, window_size=3, rel_pos='decomposed', class_token=False, **kwargs),
    ],
    ids=['Swin', 'PVTv2', 'ViT'],
)
def test_a_backward_pass_counts_once_whatever_it_computes_again(build, with_cp):
    """The products of the layers, of which each has two gradients, and a convolution of the image one."""
    model, image = build(with_cp=with_cp), torch.randn(1, 3, 64, 90)

    def step(backward: bool) -> None:
        maps = model(image)
        if backward:
            sum(x.sum() for x in maps).backward()

    plain = products_of(lambda: step(False), backward=False)
    found = products_of(lambda: step(True), backward=True)
    assert sum(found.values()) == sum(plain.values())
    first = [p for p in found if p.convolution and p.first.shape[1] == 3]
    assert {p.gradients for p in first} == {(False, True)}
    assert {p.gradients for p in found if p not in first} == {(True, True)}


def test_attention_counts_by_rows_that_fit_in_the_cache():
    q = torch.randn(2, 3, 5000, 8)
    found = products_of(lambda: F.scaled_dot_product_attention(q, q, q), backward=False)
    exact = 2 * 2 * 2 * 3 * 5000 * 5000 * 8
    assert sum(count * operations(product) for product, count in found.items()) == pytest.approx(exact, rel=0.01)
    assert max(math.prod(p.first.shape) for p in found) <= 2**18


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_floor_is_time(dtype):
    model, image = Plain().to(dtype), torch.randn(2, 3, 32, 32, dtype=dtype)
    found = products_of(lambda: model(image).sum().backward(), backward=True)
    assert {p.first.dtype for p in found} == {dtype}
    assert 0 < floor(found, 'cpu') < 10
