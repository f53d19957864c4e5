"""What the benchmarks share: options, clocks, and how results are shown."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from rich.table import Table

from vitdense.benchmark.machine import processor, versions
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


@cache
def clock_of(device: str, head_start: int = 0) -> Callable[[Callable], float]:
    """A function that times a call in milliseconds.

    On a GPU between two events, after a write of 256 MiB that empties the L2 cache, and after ``head_start`` clock
    cycles in which the host can queue the work of the call; on a CPU the second of two calls.
    """
    if device == 'cuda':
        l2 = torch.empty(2**28, dtype=torch.uint8, device='cuda')
        return partial(_time_cuda, l2=l2, head_start=head_start)
    return _time_cpu


def _time_cpu(step: Callable) -> float:
    step()  # its inputs are in the cache, as those are which a layer has just computed
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3


def _time_cuda(step: Callable, l2: torch.Tensor, head_start: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    l2.zero_()
    if head_start:
        torch.cuda._sleep(head_start)
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def brief(error: Exception) -> str:
    """Type and first line of an exception, for a note."""
    return f'{type(error).__name__}: {error}'.strip().splitlines()[0]


def describe(device: str, packages: Iterable[str]) -> list[str]:
    """Command, machine and versions, a line each."""
    return [f'`python {" ".join(sys.argv)}`', processor(device), versions(packages)]


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
