"""What the benchmarks share: options, clocks, memory, the description of the machine, and how results are shown."""

import argparse
import contextlib
import ctypes
import gc
import importlib.metadata
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.table import Table

from vitdense.console import CONSOLE


def options(description: str, repeat: int) -> argparse.ArgumentParser:
    """A parser of the options that all benchmarks have; ``repeat`` is the default number of rounds.

    From now on a benchmark that is told to end (SIGTERM) leaves by an exception, so that it can report what it has.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of PyTorch, on the CPU')
    parser.add_argument('--repeat', type=int, default=repeat, help='rounds')
    parser.add_argument('--out', type=Path, help='Markdown file to write')
    return parser


def clock_of(device: str, head_start: int = 0) -> Callable[[Callable], float]:
    """A function that times a call in milliseconds.

    On a GPU between two events, after a write of 256 MiB that empties the L2 cache, and after ``head_start`` clock
    cycles in which the host can queue the work of the call; on a CPU the second of two calls.
    """
    if device == 'cuda':
        cache = torch.empty(2**28, dtype=torch.uint8, device='cuda')
        return partial(_time_cuda, cache=cache, head_start=head_start)
    return _time_cpu


def _time_cpu(step: Callable) -> float:
    step()  # its inputs are in the cache, as those are which a layer has just computed
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3


def _time_cuda(step: Callable, cache: torch.Tensor, head_start: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cache.zero_()
    if head_start:
        torch.cuda._sleep(head_start)
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


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
    if device == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return before / 1e6, torch.cuda.max_memory_allocated() / 1e6
    if sys.platform != 'linux':
        return float('nan'), float('nan')
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not be taken for what is in use
    Path('/proc/self/clear_refs').write_text('5')  # the peak becomes what is resident now
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


def brief(error: Exception) -> str:
    """Type and first line of an exception, for a note."""
    return f'{type(error).__name__}: {error}'.strip().splitlines()[0]


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


def report(
    args: argparse.Namespace,
    header: tuple[str, ...],
    cases: list[list[tuple[str, ...]]],
    packages: Iterable[str],
    notes: list[str],
) -> None:
    """Print the rows of all ``cases`` and the ``notes``, and write them to the Markdown file ``args.out``."""
    table = Table(*header)
    for rows in cases:
        for row in rows:
            table.add_row(*row)
        table.add_section()
    setup = describe(args.device, packages)
    CONSOLE.print(table, *setup, *notes, sep='\n')
    if args.out:
        markdown = markdown_table(header, [row for rows in cases for row in rows])
        args.out.write_text('\n\n'.join([*setup, markdown, *notes]) + '\n')


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown has it."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
