"""Finds the compiled libraries, compiles the one for CPUs where there is none, and loads them."""

import logging
import os
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from vitdense.files import cache_folder

from . import build

SWITCH = 'VITDENSE_BUILD'
WHEEL = 'pip install --no-build-isolation --no-deps . in a checkout of vitdense'

logger = logging.getLogger('vitdense')


@cache
def load(name: str) -> str | None:
    """Load the library ``cpu`` or ``cuda``: one that came with the package, else, for CPUs, one compiled here.

    Returns:
        None, or why it cannot be loaded and what would help.
    """
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 10):
        return f'it needs PyTorch 2.10 or newer, found {torch.__version__}'
    path = build.FOLDER / build.file_name(name)
    if not path.is_file():
        if name == 'cuda':
            return f'vitdense was installed without its CUDA library; with nvcc, {WHEEL} makes it'
        path = cache_folder('ops') / path.name
        reason = None if path.is_file() else _compile(path)
        if reason:
            return reason
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f'{path} cannot be loaded: {error}'
    return None


def _compile(path: Path) -> str | None:
    """Compile the CPU library to ``path``, while other processes wait; why it failed, or None."""
    if os.environ.get(SWITCH) == '0':
        return f'{SWITCH}=0 forbids to compile it'
    reason = build.obstacle('cpu')
    if reason:
        return reason
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{path}.lock'):
            if path.is_file():
                return None
            logger.warning(
                'ms_deform_attn: compiling its CPU library with %s, once, some seconds (%s=0 switches this off)',
                ' '.join(build.compiler('cpu')),
                SWITCH,
            )
            failure = build.make('cpu', path)
    except OSError as error:
        return f'{path.parent} cannot be written to ({error}): set VITDENSE_CACHE to a folder that can'
    return failure and f'it does not compile:\n{failure}'
