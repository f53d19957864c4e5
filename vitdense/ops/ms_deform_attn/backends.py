"""Which implementation computes: chosen by device and type, or forced. Never the next one because one has failed."""

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

BACKENDS = ('reference', 'cpu', 'numba', 'cuda', 'triton')
VARIABLE = 'VITDENSE_MS_DEFORM_ATTN'
PREFERRED = {'cpu': ('cpu', 'numba', 'reference'), 'cuda': ('cuda', 'triton', 'reference')}
COMPILED_TYPES = (torch.float32, torch.float16, torch.bfloat16)

logger = logging.getLogger('vitdense')
_forced: str | None = None


class BackendUnavailableError(RuntimeError):
    """The back end that was asked for cannot run here."""


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force a back end, for all threads, or choose by device again (``None``).

    Outside of it the environment variable ``VITDENSE_MS_DEFORM_ATTN`` forces one.

    Raises:
        ValueError: there is no such back end.
    """
    global _forced
    before, _forced = _forced, _checked(name, 'name')
    try:
        yield
    finally:
        _forced = before


def backend_of(value: Tensor) -> ModuleType:
    """The module whose ``forward`` and ``backward`` compute for values of this device and type.

    Raises:
        BackendUnavailableError: a back end is forced that cannot run; the text says why, and what would make it run.
        ValueError: the environment variable names no back end.
    """
    name = _forced or _checked(os.environ.get(VARIABLE) or None, VARIABLE)
    if name:
        if reason := _unavailable(name, value.device, value.dtype):
            raise BackendUnavailableError(f'ms_deform_attn: the back end {name!r} was asked for, but {reason}')
        return _module(name)
    return _module(_chosen(value.device, value.dtype))


def _checked(name: str | None, source: str) -> str | None:
    if name is not None and name not in BACKENDS:
        raise ValueError(f'{source}: expected one of {", ".join(BACKENDS)}, found {name!r}')
    return name


@cache
def _chosen(device: torch.device, dtype: torch.dtype) -> str:
    """The first one preferred that can run; said once, with why those before it cannot."""
    reasons: list[str] = []
    for name in PREFERRED.get(device.type, ('reference',)):
        reason = _unavailable(name, device, dtype)
        if reason is None:
            why = ''.join(f'; {reason}' for reason in reasons)
            logger.info('ms_deform_attn: back end %s for %s on %s%s', name, dtype, device, why)
            return name
        reasons.append(f'{name}: {reason}')
    raise AssertionError('the reference is always available')


def _unavailable(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    if name != 'reference' and dtype not in COMPILED_TYPES:
        return f'it computes float32, float16 and bfloat16, not {dtype}; the back end reference does'
    return _module(name).unavailable(device)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f'{__package__}.{name}')
