"""Windows: how maps are cut, and attention within them; the linear layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vitdense.models.backbones import Swin
from vitdense.models.layers import window as window_module
from vitdense.models.layers.fast import linear as linear_module
from vitdense.models.layers.fast import products
from vitdense.models.layers.fast.linear import Linear, by_rows, linear
from vitdense.models.layers.window import cut_windows, position_bias, window_attention

CPU = torch.device('cpu')


def cut(batch, hw, window, shift):
    return cut_windows(batch, hw, window, shift, CPU)


def attention_inputs(hw, heads=2, width=8, window=(4, 4), shift=(2, 2), dtype=torch.float64):
    torch.manual_seed(0)
    windows = cut(2, hw, window, shift)
    n = window[0] * window[1]
    qkv = torch.randn(sum(windows.counts), n, 3, heads, width, dtype=dtype, requires_grad=True)
    return qkv, torch.randn(heads, n, n, dtype=dtype, requires_grad=True), windows


SIDE = st.integers(2, 5)


@st.composite
def cuts(draw, sides: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """A map, a window, and a shift of half a window, along both sides or one or none."""
    window = draw(SIDE), draw(SIDE)
    shift = tuple(side // 2 * draw(st.booleans()) for side in window)
    return (draw(st.integers(1, sides)), draw(st.integers(1, sides))), window, shift


@pytest.mark.slow
@given(batch=st.integers(1, 3), cuts=cuts(12))
@settings(deadline=None, max_examples=60)
def test_joining_undoes_splitting_and_so_do_gradients(batch, cuts):
    hw, window, shift = cuts
    x = torch.randn(batch, hw[0] * hw[1], 2, dtype=torch.float64, requires_grad=True)
    for shifted in ((0, 0), shift):
        windows = cut(batch, hw, window, shifted)
        parts = windows.split(x)
        assert parts.shape == (sum(windows.counts), window[0] * window[1], 2)
        assert torch.equal(windows.join(parts), x)
        grad = torch.randn_like(parts)
        torch.autograd.backward(parts, grad)
        assert torch.equal(x.grad, windows.join(grad))
        x.grad = None
        assert torch.autograd.gradcheck(
            lambda p, windows=windows: windows.join(p), parts[..., :1].detach().requires_grad_()
        )


@given(cuts=cuts(15))
@settings(deadline=None, max_examples=60)
def test_windows_are_those_of_a_padded_and_rolled_map(cuts):
    """Order aside; and the mask of each is that of the regions which the roll has brought together."""
    (height, width), window, shift = cuts
    if not any(shift):
        return
    windows = cut(1, (height, width), window, shift)
    padded_hw = [-(-side // by) * by for side, by in zip((height, width), window, strict=True)]
    tokens = F.pad(
        torch.arange(1.0, height * width + 1).view(height, width), (0, padded_hw[1] - width, 0, padded_hw[0] - height)
    )
    regions = torch.zeros(padded_hw)
    for number, (rows, columns) in enumerate([(window[0], 0), (shift[0], 0), (0, window[1]), (0, shift[1])]):
        if rows or columns:
            regions[-rows:, -columns:] += 10.0**number

    def parts(x):
        return x.unfold(0, window[0], window[0]).unfold(1, window[1], window[1]).flatten(2).flatten(0, 1)

    rolled = parts(tokens.roll((-shift[0], -shift[1]), (0, 1)))
    expected = {tuple(t.tolist()): (r[:, None] != r) for t, r in zip(rolled, parts(regions), strict=True)}
    kinds = torch.arange(4).repeat_interleave(torch.tensor(windows.counts))
    found = windows.split(torch.arange(1.0, height * width + 1).view(1, -1, 1)).squeeze(2)
    assert len(found) == len(rolled)
    for window_tokens, kind in zip(found, kinds, strict=True):
        apart = expected[tuple(window_tokens.tolist())]
        assert torch.equal(windows.masks[kind, 0], -100.0 * apart)


def test_position_bias_is_that_of_the_offset():
    height, width = 3, 4
    table = torch.randn((2 * height - 1) * (2 * width - 1), 2)
    bias = position_bias(table, (height, width))
    for i in range(height * width):
        for j in range(height * width):
            dy, dx = i // width - j // width, i % width - j % width
            assert torch.equal(bias[:, i, j], table[(dy + height - 1) * (2 * width - 1) + dx + width - 1])


@pytest.mark.parametrize('hw', [(8, 12), (9, 5), (4, 4), (3, 2)])
@pytest.mark.parametrize('shift', [(0, 0), (2, 2), (0, 2)])
def test_attention_in_pieces_equals_that_of_pytorch(hw, shift, monkeypatch):
    qkv, bias, windows = attention_inputs(hw, shift=shift)
    monkeypatch.setattr(window_module, 'PIECE', 3 * 2 * 16**2 * 8)  # three windows
    ours = window_attention(qkv, bias, windows, 0.3)
    masks = bias[None] if windows.masks is None else bias + windows.masks
    mask = masks.repeat_interleave(torch.tensor(windows.counts), dim=0)
    q, k, v = qkv.transpose(1, 3).unbind(2)
    theirs = F.scaled_dot_product_attention(q, k, v, mask, scale=0.3).transpose(1, 2).flatten(2)
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad(out, (qkv, bias), grad) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def test_attention_with_dropout_is_that_without_on_average():
    qkv, bias, windows = attention_inputs((8, 8))
    torch.manual_seed(0)
    with torch.no_grad():
        runs = torch.stack([window_attention(qkv, bias, windows, 0.3, dropout=0.5) for _ in range(400)])
        exact = window_attention(qkv, bias, windows, 0.3)
    assert runs.std(0).mean() > 0.1
    assert (runs.mean(0) - exact).abs().mean() < 0.05


def test_bfloat16_attention_has_gradients_near_those_of_float64():
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        qkv, bias, windows = attention_inputs((8, 8), dtype=torch.float64)
        out = window_attention(qkv.to(dtype), bias.float(), windows, 0.3)
        assert out.dtype == dtype
        results.append([out, *torch.autograd.grad(out.double().square().sum(), (qkv, bias))])
    for exact, half in zip(*results, strict=True):
        assert (half - exact).norm() / exact.norm() < 0.02


def test_windows_cut_in_inference_mode_serve_training():
    window_module.cut_windows.__wrapped__.cache_clear()
    window_module.relative_position_index.__wrapped__.cache_clear()
    model = Swin('tiny', depths=(2, 2, 2, 2), embed_dims=24, num_heads=(1, 2, 4, 8))
    with torch.inference_mode():
        model(torch.randn(1, 3, 50, 60))
    sum(m.sum() for m in model(torch.randn(1, 3, 50, 60))).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('shape', [(2, 48, 6), (128, 49, 6), (1, 97, 6), (3, 6), (0, 6)])
@pytest.mark.parametrize('bias', [True, False])
def test_linear_equals_that_of_pytorch(shape, bias, monkeypatch):
    monkeypatch.setattr(products, '_choice', products.ONEDNN)
    torch.manual_seed(0)
    layer = Linear(6, 10, bias=bias)
    x = torch.randn(shape, requires_grad=True)
    inputs = (x, *layer.parameters())
    ours, theirs = layer(x), F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad(out, inputs, grad) for out in (ours, theirs)), strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_linear_follows_autocast_and_other_types():
    x, weight, bias = torch.randn(64, 6), torch.randn(10, 6), torch.randn(10)
    with torch.autocast('cpu', torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    torch.testing.assert_close(linear(x.double(), weight.double(), None), x.double() @ weight.double().t())


@torch.no_grad()
def test_by_rows_is_the_function_of_the_whole(monkeypatch):
    x = torch.randn(2, 50, 3)
    sizes = []

    def function(part):
        sizes.append(part.shape[1])
        return part.exp()

    assert torch.equal(by_rows(function, x, 3), x.exp())
    monkeypatch.setattr(linear_module, 'PIECE', 2 * 12 * 7 * 4)
    assert torch.equal(by_rows(function, x, 12), x.exp())
    with torch.enable_grad():
        assert torch.equal(by_rows(function, x, 12), x.exp())
    assert sizes == [50, 7, 7, 7, 7, 7, 7, 7, 1, 50]
