"""Dropout: what is drawn, its gradient, and that the backward pass draws the same again."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vitdense.models.layers.fast.dropout import PIECE, Dropout, dropout, relu_dropout

SHAPES = [(3, 5), (0, 5), (2, PIECE // 4 + 1, 3), (4 * PIECE,)]


@pytest.mark.parametrize('p', [0.1, 0.5, 0.9])
def test_share_and_size_of_what_is_kept(p):
    torch.manual_seed(0)
    count = 40 * PIECE
    kept = dropout(torch.ones(count), p)
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
    share = kept.count_nonzero().item() / count
    assert share == pytest.approx(1 - p, abs=5 * (p * (1 - p) / count) ** 0.5 + 2**-17)
    assert dropout(torch.ones(count), p).ne(kept).float().mean() == pytest.approx(2 * p * (1 - p), abs=0.01)


def test_values_are_dropped_independently_of_their_neighbours():
    torch.manual_seed(0)
    kept = (dropout(torch.ones(40 * PIECE), 0.5) > 0).float() - 0.5
    for distance in (1, 2, 3, 4, 5, PIECE):
        assert abs(4 * (kept[distance:] * kept[:-distance]).mean()) < 5 / kept.numel() ** 0.5


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_gradient_is_that_of_what_was_kept(shape, dtype):
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    out = dropout(x, 0.3)
    assert out.dtype == dtype
    weights = torch.randn(shape, dtype=dtype)
    out.backward(weights)
    scale = torch.where(out == 0, 0.0, 1 / 0.7)
    torch.testing.assert_close(x.grad, (weights * scale).to(dtype))
    torch.testing.assert_close(out, (x * scale).to(dtype))


@pytest.mark.parametrize('shape', SHAPES)
def test_relu_and_dropout_in_one(shape):
    x = torch.randn(shape, requires_grad=True)
    out = relu_dropout(x * 1, 0.3)
    scale = torch.where(out == 0, 0.0, 1 / 0.7)
    weights = torch.randn(shape)
    out.backward(weights)
    torch.testing.assert_close(out, F.relu(x) * scale)
    torch.testing.assert_close(x.grad, weights * scale)


@pytest.mark.parametrize('shape', [(40, 30), (1, 30), (0, 30)])
def test_relu_and_dropout_of_a_transposed_tensor(shape):
    x = torch.randn(shape, requires_grad=True)
    out = relu_dropout((x * 1).t(), 0.5)
    out.sum().backward()
    torch.testing.assert_close(out, F.relu(x.t()) * torch.where(out == 0, 0.0, 2.0))
    torch.testing.assert_close(x.grad, torch.where(out == 0, 0.0, 2.0).t())


def test_a_transposed_tensor_is_dropped_as_another():
    x = torch.randn(40, 30).t().requires_grad_()
    out = dropout(x, 0.5)
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(out == 0, 0.0, 2.0))


def test_activation_checkpointing_draws_the_same_again():
    gradients = []
    for run in (lambda f, x: f(x), lambda f, x: checkpoint(f, x, use_reentrant=False)):
        torch.manual_seed(0)
        x = torch.ones(5000, requires_grad=True)
        run(lambda x: dropout(relu_dropout(x * 2, 0.5).square(), 0.5), x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_the_seed_of_pytorch_decides():
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(dropout(torch.ones(100), 0.5))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_nothing_is_dropped_outside_of_training_or_with_zero():
    x = torch.randn(100)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(relu_dropout(x, 0.0), F.relu(x))
    assert not dropout(x, 1.0).any()


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    layer = Dropout(0.5)
    x = torch.ones(1000)
    found = torch.compile(layer, fullgraph=True, backend='eager')(x)
    assert set(found.unique().tolist()) == {0.0, 2.0}
