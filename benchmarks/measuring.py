"""What the benchmarks share: clocks, memory, and the description of the machine."""

import contextlib
import ctypes
import gc
import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch


def clock_of(device: str) -> Callable[[Callable], float]:
    """A function that times a call in milliseconds.

    On a GPU between two events, after a write of 256 MiB that empties the L2 cache; on a CPU the second of two calls.
    """
    if device == 'cuda':
        return partial(_time_cuda, cache=torch.empty(2**28, dtype=torch.uint8, device='cuda'))
    return _time_cpu


def _time_cpu(step: Callable) -> float:
    step()  # its inputs are in the cache, as those are which a layer has just computed
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3


def _time_cuda(step: Callable, cache: torch.Tensor) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cache.zero_()
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def extra_memory(step: Callable, device: str) -> float:
    """Megabytes at the peak of ``step`` beyond those before; NaN where they cannot be known.

    On a GPU of what the allocator of PyTorch has given out, on a CPU of the resident memory of the process (Linux).
    """
    gc.collect()
    if device == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if sys.platform != 'linux':
        return float('nan')
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not be taken for what is in use
    Path('/proc/self/clear_refs').write_text('5')  # the peak becomes what is resident now
    before = _peak_resident()
    step()
    return (_peak_resident() - before) / 1e6


def _peak_resident() -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM'))


def describe(device: str, packages: Iterable[str]) -> list[str]:
    """Command, machine and versions, a line each."""
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(': ')[1] for line in lines if line.startswith('model name')), platform.processor())
    machine = torch.cuda.get_device_name() if device == 'cuda' else f'{cpu}, {torch.get_num_threads()} threads'
    versions = []
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f'{name} {importlib.metadata.version(name)}')
    return [f'`python {" ".join(sys.argv)}`', machine, f'Python {platform.python_version()}, {", ".join(versions)}']


def write_markdown(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]], notes: list[str]) -> None:
    """The first three ``notes`` (:func:`describe`), the table, and the other notes."""
    header = tuple(header)
    lines = [header, ['---'] * len(header), *rows]
    table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    path.write_text('\n\n'.join([*notes[:3], table, *notes[3:]]) + '\n')
