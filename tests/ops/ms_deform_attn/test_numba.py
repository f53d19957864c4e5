"""The back end for CPUs without a compiler: its types, threads and cache; test_backends.py has what all share."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from support.deform_attn import assert_same_in_any_threads, by_gathers, gradients, inputs, make_inputs, smooth

from vitdense.ops.ms_deform_attn import backends, numba, use_backend

REASON = numba.unavailable(torch.device('cpu'))
needs_numba = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def run(case):
    return [numba.forward(*case), *numba.backward(case.grad_output, *case)]


@needs_numba
@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(inputs(widths=(8, 37), max_queries=70))
def test_it_is_the_sum_over_pixels(case):
    """Heads of one block and of two, of which the second is narrow."""
    found, expected = run(case), list(gradients(by_gathers, case))
    found[2], expected[2] = found[2] * smooth(case), expected[2] * smooth(case)
    for ours, theirs in zip(found, expected, strict=True):
        atol = 1e-5 * max(theirs.abs().amax().item(), 0.1)
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=atol)


@needs_numba
@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits(dtype):
    """Each passes unchanged through a pixel's centre; ties are rounded to even, and no NaN becomes a number."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    numbers = numbers[numbers.isfinite()].unflatten(0, (-1, 8))
    count = len(numbers)
    centres = (torch.arange(count) + 0.5) / count
    locations = torch.stack([torch.full_like(centres, 0.5), centres], -1).view(1, count, 1, 1, 1, 2)
    out = numba.forward(numbers.view(1, count, 1, 8), [count, 1], locations, torch.ones(1, count, 1, 1, 1))
    shares = (centres * count - 0.5) % 1
    assert (out[0] == numbers)[(shares == 0)].all()
    assert (shares == 0).any()

    bits = torch.randint(-(2**31), 2**31, (20000,), generator=torch.Generator().manual_seed(0)).int()
    bits[::2] &= ~0xFFF  # every 16th of these is a tie of bfloat16, and half of them of float16
    weights = torch.cat([bits, torch.tensor([-1, 2**31 - 1], dtype=torch.int32)]).view(torch.float32)
    case = torch.ones(1, 1, 1, 8, dtype=dtype), [1, 1], torch.full((1, len(weights), 1, 1, 1, 2), 0.5)
    rounded = numba.forward(*case, weights.view(1, -1, 1, 1, 1))
    finite = torch.where(weights.isinf(), torch.nan, weights)  # a weight of infinity times a share of 0
    expected = finite.to(dtype)[:, None].expand(-1, 8)
    torch.testing.assert_close(rounded[0], expected, rtol=0, atol=0, equal_nan=True)


@needs_numba
@pytest.mark.slow
@pytest.mark.parametrize(('images', 'heads'), [(1, 1), (3, 2)])
def test_any_number_of_threads_gives_the_same_bits(images, heads):
    case = make_inputs([(20, 31), (9, 8), (3, 5)], batch=images, queries=300, heads=heads)
    assert_same_in_any_threads(run, case)


@needs_numba
@pytest.mark.slow
def test_what_no_pixel_reaches_adds_nothing():
    """NaN, infinite and remote locations; and pixels that are not read may be infinite."""
    case = make_inputs(points=3, low=0.1, high=0.9)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 2.0])
    case.sampling_locations[:, ::2, :, :, 1] = odd[torch.arange(7) % 6, None, None, None]
    without = case._replace(attention_weights=case.attention_weights.clone())
    without.attention_weights[:, ::2, :, :, 1] = 0
    found, expected = run(case), run(without)
    torch.testing.assert_close(found[:2], expected[:2])
    for gradient in found[2:]:
        assert gradient.isfinite().all()
        assert not gradient[:, ::2, :, :, 1].any()
    edge = make_inputs([(4, 5)], low=-0.1, high=-0.1)
    edge.value.unflatten(1, (4, 5))[:, 1:].fill_(torch.nan)
    edge.value.unflatten(1, (4, 5))[:, :, 1:].fill_(torch.nan)
    out, _, by_locations, by_weights = run(edge)
    assert all(x.isfinite().all() for x in (out, by_locations, by_weights))


@needs_numba
@pytest.mark.slow
def test_later_processes_load_what_the_first_has_compiled(tmp_path):
    program = """
import logging, torch
logging.basicConfig(level='INFO')
from vitdense.ops.ms_deform_attn import backends, ms_deform_attn, numba
value, locations, weights = torch.ones(1, 4, 1, 3), torch.full((1, 1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 1, 1)
assert ms_deform_attn(value, [(2, 2)], locations, weights).tolist() == [[[1.0] * 3]]
print(sum(numba.kernel('forward').stats.cache_hits.values()), end='')
"""
    env = {**os.environ, 'VITDENSE_CACHE': str(tmp_path), 'VITDENSE_MS_DEFORM_ATTN': 'numba'}
    command = [sys.executable, '-c', program]
    results = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [result.stdout for result in results] == ['0', '1']
    assert 'to compile' not in results[1].stderr
    assert list(tmp_path.glob('ops/numba-*/**/*.nbc'))


def test_it_is_optional(monkeypatch, caplog):
    numba.unavailable.cache_clear()
    backends._chosen.cache_clear()
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    monkeypatch.setattr(numba.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(backends._module('cpu'), 'unavailable', lambda device: 'there is no compiler')
    try:
        with caplog.at_level(logging.INFO, 'vitdense'):
            assert backends.backend_of(torch.zeros(1)).__name__.endswith('.reference')
        assert 'numba: numba is not installed: pip install numba' in caplog.text
        with use_backend('numba'), pytest.raises(backends.BackendUnavailableError, match='pip install numba'):
            backends.backend_of(torch.zeros(1))
    finally:
        numba.unavailable.cache_clear()
        backends._chosen.cache_clear()


@needs_numba
def test_no_cache_that_can_be_written(monkeypatch, caplog):
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, '_locator_classes', [])
    monkeypatch.setattr(caching.CompileResultCacheImpl, '_locator_classes', [], raising=False)
    numba._compiled.cache_clear()
    try:
        assert callable(numba.kernel('copy_rows'))
        assert 'ops/numba-' in caplog.text
        assert 'cannot be written to: numba compiles in each process' in caplog.text
    finally:
        numba._compiled.cache_clear()
