"""What a machine is, and how much of its memory is taken."""

import contextlib
import ctypes
import gc
import importlib.metadata
import platform
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from vitdense.names import counted
from vitdense.processor import processor_name


def extra_memory(step: Callable, device: str) -> float:
    """Megabytes at the peak of ``step`` beyond those before; NaN where they cannot be known.

    On a GPU of what the allocator of PyTorch has given out, on a CPU of the resident memory of the process (Linux).
    """
    before, peak = _memory(step, device)
    return peak - before


def peak_memory(step: Callable, device: str) -> float:
    """Megabytes at the peak of ``step``, with what was there before: see :func:`extra_memory`."""
    return _memory(step, device)[1]


def _memory(step: Callable, device: str) -> tuple[float, float]:
    """Megabytes before ``step`` and at its peak."""
    gc.collect()
    if sys.platform == 'linux':
        ctypes.CDLL(None).malloc_trim(0)  # what is free already must not be taken for what is in use
    if device.startswith('cuda'):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return before / 1e6, torch.cuda.max_memory_allocated() / 1e6
    try:
        Path('/proc/self/clear_refs').write_text('5')  # the peak becomes what is resident now
    except OSError:
        return float('nan'), float('nan')
    before = _peak_resident()
    step()
    return before / 1e6, _peak_resident() / 1e6


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize()


def _peak_resident() -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM'))


def processor(device: str) -> str:
    """Name of the processor, and the threads of PyTorch on a CPU."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    return f'{processor_name()}, {counted(torch.get_num_threads(), "thread")}'


def versions(packages: Iterable[str]) -> str:
    """Those of Python and of the packages that are installed."""
    found = [f'Python {platform.python_version()}']
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f'{name} {importlib.metadata.version(name)}')
    return ', '.join(found)
