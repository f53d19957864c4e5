"""Matrix products of linear layers by oneDNN, and which library is chosen."""

import json

import pytest
import torch
from torch.nn import functional as F

from vitdense.models.layers.fast import products
from vitdense.models.layers.fast.linear import linear
from vitdense.models.layers.fast.products import ONEDNN, PRODUCTS, PYTORCH, VARIABLE, choose, use

needs_onednn = pytest.mark.skipif(not products.onednn_is_there(), reason='PyTorch was built without oneDNN')
MEASURED = {f'{product} {kind}' for product in PRODUCTS for kind in ('narrow', 'wide')}
FORMS = {
    'dense': lambda n, c: torch.randn(n, c),
    'transposed': lambda n, c: torch.randn(c, n).t(),
    'one number': lambda n, c: torch.randn(1).expand(n, c),
    'one row': lambda n, c: torch.randn(1, c).expand(n, c),
    'one column': lambda n, c: torch.randn(n, 1).expand(n, c),
    'not aligned': lambda n, c: torch.randn(n * c + 1)[1:].view(n, c),
    'columns of a wider one': lambda n, c: torch.randn(n, 3 * c + 1)[:, 1 : c + 1],
    'every other row': lambda n, c: torch.randn(2 * n, c)[::2],
    'every other column': lambda n, c: torch.randn(n, 2 * c)[:, ::2],
    'transposed part': lambda n, c: torch.randn(c, 3 * n)[:, n : 2 * n].t(),
}


@pytest.fixture(autouse=True)
def _choose_again(monkeypatch, tmp_path):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(products, '_choice', None)


@pytest.fixture
def weights(monkeypatch) -> list[torch.Tensor]:
    """All products but empty ones by oneDNN; the second factors that its operator gets."""
    seen = []
    operator = torch.ops.mkldnn._linear_pointwise

    def watched(x, weight, *args):
        seen.append(weight)
        return operator(x, weight, *args)

    monkeypatch.setattr(torch.ops.mkldnn, '_linear_pointwise', watched)
    use(ONEDNN)
    return seen


@needs_onednn
@pytest.mark.parametrize('out_channels', [3, 9])
@pytest.mark.parametrize('which', range(3))
@pytest.mark.parametrize('form', FORMS)
def test_any_strides_give_what_pytorch_gives_and_reach_onednn_dense(form, which, out_channels, weights):
    forms = ['dense'] * 3
    forms[which] = form
    shapes = (7, 5), (out_channels, 5), (7, out_channels)
    x, weight, grad = (FORMS[form](*shape) for form, shape in zip(forms, shapes, strict=True))
    inputs = x.requires_grad_(), weight.requires_grad_(), torch.randn(out_channels).requires_grad_()
    results = []
    for function in (linear, F.linear):
        result = function(*inputs)
        results.append([result, *torch.autograd.grad(result, inputs, grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert len(weights) == 3
    assert all(x.is_contiguous() or x.t().is_contiguous() for x in weights)


@needs_onednn
@pytest.mark.parametrize('shape', [(5,), (1, 5), (0, 5), (2, 0, 5), (1, 1, 5), (2, 3, 5)])
@pytest.mark.parametrize('out_channels', [0, 1, 13])
def test_few_rows_and_none(shape, out_channels, weights):
    inputs = torch.randn(shape, requires_grad=True), torch.randn(out_channels, 5, requires_grad=True)
    results = []
    for function in (linear, F.linear):
        result = function(*inputs, None)
        results.append([result, *torch.autograd.grad(result.sum(), inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@needs_onednn
def test_gradients_have_gradients(weights):
    inputs = [torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)]
    grads = []
    for function in (linear, F.linear):
        first = torch.autograd.grad(function(*inputs, None).pow(3).sum(), inputs, create_graph=True)
        grads.append(torch.autograd.grad(sum(x.square().sum() for x in first), inputs))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)


@needs_onednn
@pytest.mark.parametrize('product', PRODUCTS)
def test_each_product_has_a_library_of_its_own(product, weights):
    use({f'{product} small'})
    x, weight = torch.randn(6, 4, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    torch.autograd.grad(linear(x, weight, None).sum(), (x, weight))
    assert len(weights) == 1


def test_small_products_choose_nothing(monkeypatch):
    monkeypatch.setattr(products, 'choose', pytest.fail)
    linear(torch.randn(16, 256), torch.randn(256, 256), None)


@pytest.fixture
def measured(monkeypatch) -> list[frozenset[str]]:
    """On a processor where libraries differ: what the next measurements find."""
    findings = [frozenset({'forward wide'}), frozenset({'to input wide'})]
    monkeypatch.setattr(products, 'has_avx512', lambda: True)
    monkeypatch.setattr(products, 'measure', lambda: findings.pop(0))
    return findings


def test_what_was_measured_is_kept_for_other_processes(measured):
    assert choose() == choose() == {'forward wide'}
    assert len(measured) == 1


def test_another_number_of_threads_measures_again(measured, monkeypatch):
    choose()
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1000)
    assert choose() == {'to input wide'}


def test_of_two_that_measure_at_once_both_follow_the_first(measured, monkeypatch):
    other = json.dumps(dict(onednn=['to weight narrow']))

    def late():
        products._file().parent.mkdir()
        products._file().write_text(other)
        return frozenset()

    monkeypatch.setattr(products, 'measure', late)
    assert choose() == {'to weight narrow'}


@pytest.mark.parametrize('content', ['', '{', '[]', '{"onednn": 1}', '{"onednn": ["backward"]}', '{"onednn": [[]]}'])
def test_a_broken_file_is_replaced(content, measured):
    products._file().parent.mkdir()
    products._file().write_text(content)
    assert choose() == choose() == {'forward wide'}


def test_where_nothing_can_be_kept_pytorch_computes(measured, monkeypatch, tmp_path):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'file'))
    assert choose() == PYTORCH


def test_without_wide_registers_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(products, 'has_avx512', lambda: False)
    monkeypatch.setattr(products, 'measure', pytest.fail)
    assert choose() == PYTORCH
    assert not any(tmp_path.iterdir())


@needs_onednn
def test_a_measurement_ends_in_time_and_draws_no_numbers(monkeypatch):
    calls = []
    monkeypatch.setattr(products.time, 'perf_counter', lambda: len(calls) * 0.001)
    monkeypatch.setattr(products, 'multiply', lambda *_: calls.append('onednn'))
    monkeypatch.setattr(F, 'linear', lambda *_: calls.extend(['pytorch', 'pytorch']))
    state = torch.get_rng_state()
    assert products.measure() == MEASURED  # of which each call takes half the time
    assert len(calls) <= products.SECONDS / 0.001 + 2
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(('seconds', 'chosen'), [(1.04, PYTORCH), (1.06, MEASURED)])
def test_only_what_is_clearly_faster_is_taken(seconds, chosen, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(products.time, 'perf_counter', lambda: clock[0])
    monkeypatch.setattr(products, 'multiply', lambda *_: clock.append(clock.pop() + 1e-4))
    monkeypatch.setattr(F, 'linear', lambda *_: clock.append(clock.pop() + seconds * 1e-4))
    assert products.measure() == chosen


@pytest.mark.parametrize(('name', 'chosen'), [('pytorch', PYTORCH), ('onednn', ONEDNN)])
def test_a_variable_forces_a_library(name, chosen, monkeypatch):
    monkeypatch.setattr(products, 'onednn_is_there', lambda: True)
    monkeypatch.setattr(products, 'measure', pytest.fail)
    monkeypatch.setenv(VARIABLE, name)
    assert choose() == chosen


def test_a_library_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(products, 'onednn_is_there', lambda: False)
    monkeypatch.setenv(VARIABLE, 'onednn')
    with pytest.raises(ValueError, match=r'^VITDENSE_PRODUCTS: expected pytorch, found onednn, which this build'):
        choose()
    monkeypatch.setenv(VARIABLE, 'mkl')
    with pytest.raises(ValueError, match=r"^VITDENSE_PRODUCTS: expected pytorch or onednn, found 'mkl'$"):
        choose()
