"""Implementations that are measured in processes of their own, in turn."""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from measuring import brief, clock_of, markdown_table
from rich.table import Table

from vitdense.benchmark.floor import floor, products_of
from vitdense.benchmark.kinds import KINDS, REST, shares
from vitdense.benchmark.machine import extra_memory
from vitdense.console import CONSOLE

OURS = 'vitdense'

UNREST = 0.1
"""Share by which two rounds of one implementation differ on a machine that has something else to do."""


class Apart:
    """Something that lives in a process of its own; functions of it are sent there.

    Args:
        make: builds it there, while the process that asked goes on.
        threads: of PyTorch, on a CPU.
    """

    def __init__(self, make: Callable[[], Any], threads: int) -> None:
        context = multiprocessing.get_context('spawn')
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, threads, there), daemon=True)
        self._process.start()
        there.close()

    def wait(self) -> None:
        """Wait until it is built; to be called once, before anything is sent.

        Raises:
            RuntimeError: it cannot be built; the message is that of the process.
        """
        self._receive()

    def __call__(self, function: Callable, *args: Any) -> Any:
        """``function`` of what lives there and of ``args``.

        Raises:
            RuntimeError: it raised something, or the process has ended.
        """
        self._here.send((function, args))
        return self._receive()

    def _receive(self) -> Any:
        try:
            fault, result = self._here.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise RuntimeError(f'its process ended with code {self._process.exitcode}') from None
        if fault:
            raise RuntimeError(fault)
        return result

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _serve(make: Callable[[], Any], threads: int, there: Connection) -> None:
    torch.set_num_threads(threads)
    subject = None

    def build() -> None:
        nonlocal subject
        subject = make()

    def answer(call: Callable[[], Any]) -> None:
        try:
            there.send((None, call()))
        except Exception as error:
            there.send((brief(error), None))

    answer(build)
    with suppress(EOFError):
        while True:
            function, args = there.recv()
            answer(partial(function, subject, *args))


def in_places(
    makers: Mapping[str, Callable[[], Any]], args: argparse.Namespace, notes: list[str], what: str
) -> dict[str, Apart]:
    """A process for each implementation of ``what``, ours first; ``notes`` gets the peers that cannot be built.

    Raises:
        RuntimeError: ours cannot be built.
    """
    places = {name: Apart(maker, args.threads) for name, maker in makers.items()}
    for name, place in list(places.items()):
        try:
            place.wait()
        except RuntimeError as error:
            if name == OURS:
                raise
            notes.append(f'Not measured: {what} of {name}: {error}')
            places.pop(name).end()
    return places


Step = Callable[[Any], Callable[[], Any]]
"""From what lives in a process to the call that is measured. It is sent there: a function or ``partial``, no lambda."""


def seconds_of(subject: Any, step: Step, device: str) -> float:
    """Of a call. One shorter than a second is called before, so that its inputs are in the cache."""
    call = step(subject)
    if device == 'cuda':
        return clock_of(device)(call) / 1e3
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    return seconds if seconds > 1 else clock_of(device)(call) / 1e3


def memory_of(subject: Any, step: Step, device: str) -> float:
    """Megabytes that a call adds at its peak."""
    return extra_memory(step(subject), device)


def floor_of(subject: Any, step: Step, backward: bool, device: str) -> float:
    """Seconds of the products and convolutions of a call alone."""
    return floor(products_of(step(subject), backward), device)


def kinds_of(subject: Any, step: Step, device: str) -> dict[str, float]:
    """Shares of the kinds of operators in the time of a call."""
    return shares(step(subject), device)


@dataclass
class Turns:
    """What was measured of implementations that took turns.

    Attributes:
        seconds: of a step by implementation, in each round.
        memory: megabytes that it adds, by implementation.
        floor: seconds of the products of the first one alone, the least of all rounds.
    """

    seconds: dict[str, list[float]]
    memory: dict[str, float]
    floor: float

    @property
    def least(self) -> dict[str, float]:
        """Seconds of the fastest round, by implementation."""
        return {name: min(rounds) for name, rounds in self.seconds.items()}

    @property
    def unrest(self) -> float:
        """The largest difference of two rounds of one implementation, as a share of its fastest."""
        return max(max(rounds) / min(rounds) - 1 for rounds in self.seconds.values())

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the table, an implementation each.

        Its name, seconds, their ratio to the best peer and to the floor, megabytes, and their ratio to the best peer.
        """
        peers = [name for name in self.seconds if name != OURS]
        fastest, leanest = (min(x[name] for name in peers) for x in (self.least, self.memory))
        rows = []
        for name, seconds in self.least.items():
            above = f'{seconds / self.floor:.2f}' if self.floor else ''
            time = f'{seconds:.3f}', f'{seconds / fastest:.2f}', above
            rows.append((name, *time, f'{self.memory[name]:.0f}', f'{self.memory[name] / leanest:.2f}'))
        return rows


def take_turns(places: Mapping[str, Apart], step: Step, backward: bool, device: str, rounds: int) -> Turns:
    """Measure a step of all implementations; every other round in reversed order, each with the floor of the first."""
    memory = {name: place(memory_of, step, device) for name, place in places.items()}
    seconds: dict[str, list[float]] = {name: [] for name in places}
    floors = []
    for number in range(rounds):
        for name, place in list(places.items())[:: 1 - 2 * (number % 2)]:
            seconds[name].append(place(seconds_of, step, device))
        floors.append(next(iter(places.values()))(floor_of, step, backward, device))
    return Turns(seconds, memory, min(floors))


def busy(turns: Iterable[Turns]) -> list[str]:
    """A note if the machine had something else to do, for the table."""
    most = max((turn.unrest for turn in turns), default=0)
    notes = []
    if most > UNREST:
        notes.append(f'The machine was busy: two rounds of one implementation differ by {most:.0%}.')
    return notes


def report_kinds(args: argparse.Namespace, shares: dict[str, dict[str, float]]) -> None:
    """Print what the time of steps goes to, a row each, and add it to the Markdown file ``args.out``."""
    kinds = sorted({kind for row in shares.values() for kind in row}, key=[*KINDS, REST].index)
    rows = [(name, *(f'{row.get(kind, 0):.1%}' for kind in kinds)) for name, row in shares.items()]
    table = Table('step', *kinds)
    for row in rows:
        table.add_row(*row)
    CONSOLE.print(table)
    if args.out:
        with args.out.open('a') as file:
            file.write(f'\n{markdown_table(("step", *kinds), rows)}\n')
