"""What Ctrl-C, SIGTERM and the end of its terminal do to a command: they end it clean, and without a traceback.

Nothing here needs PyTorch. While a training goes on, the first signal asks it to end after its step; see
:class:`vitdense.engine.hooks.StopHook`. The second one ends the process at once, whatever it does; but SIGHUP asks only
once, because nobody repeats it: a shell hands it on, and the terminal sends it as well when the shell is gone.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn

HANGUP = getattr(signal, 'SIGHUP', None)
"""What a terminal that is closed sends; Windows has none."""

ENDING = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number)

ASKING = (*ENDING, *(getattr(signal, name) for name in ('SIGUSR1',) if hasattr(signal, name)))
"""What asks a training to end; ``sbatch --signal=USR1@300`` sends the last one before the time is over."""

REPEAT = 0.3
"""Seconds in which a signal that comes again is the same one: a launcher hands on what the terminal sent to all."""


RECEIVED: list[int] = []
"""The signals that came to the command so far."""


class Stopped(SystemExit):
    """A signal ends the process.

    Attributes:
        code: exit code, 128 and the number of the signal, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(exit_code(number))


class Signals:
    """Receives signals while it is entered; in other threads than the main one it does nothing.

    SIGHUP stays ignored where it is, as after ``nohup``.

    Attributes:
        number: the first signal that came, ``None`` before.
    """

    def __init__(self, action: Callable[[int], None], numbers: tuple[int, ...] = ENDING) -> None:
        self.action, self.numbers = action, numbers
        self.number: int | None = None
        self._when: float | None = None
        self._process = os.getpid()
        self._before: dict[int, Callable[[int, FrameType | None], None] | int | None] = {}

    def __enter__(self) -> 'Signals':
        if threading.current_thread() is threading.main_thread():
            ignored = HANGUP if HANGUP and signal.getsignal(HANGUP) == signal.SIG_IGN else None
            self._before = {
                number: signal.signal(number, self._receive) for number in self.numbers if number != ignored
            }
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()
        if kind is None and self.number is not None:
            self.action(self.number)  # some packages catch everything while they are imported

    def release(self) -> None:
        """Give the signals back to what handled them before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # of a child that was forked
            os._exit(exit_code(number))
        if number != HANGUP:
            now = time.monotonic()
            if self._when is not None and now - self._when >= REPEAT:
                end(number)
            self._when = self._when or now
        if self.number is None:
            self.number = number
            RECEIVED.append(number)
            self.action(number)


def exit_code(number: int) -> int:
    """The exit code of a process that a signal ended."""
    return 128 + number


def name_of(number: int) -> str:
    """``Ctrl-C``, or the name of the signal."""
    return 'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name


def interrupt(number: int) -> NoReturn:
    """Leave the command through its ``finally`` blocks."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    write(ended(number))
    raise Stopped(number)


def end(number: int) -> NoReturn:
    """End this process and those that it has started, at once."""
    write(ended(number))
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(exit_code(number))


def ended(number: int) -> str:
    """What is said when a signal has ended a command."""
    return 'interrupted' if number == signal.SIGINT else f'ended by {name_of(number)}'


def write(line: str) -> None:
    """A line to stderr, also from a handler, where no buffer can be used."""
    with suppress(OSError):  # there is no terminal any more
        os.write(2, f'{line}\n'.encode())
