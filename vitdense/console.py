"""What people see while a tool runs: warnings, and what :func:`say` is told. The log file gets everything."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from mmengine.logging import MMLogger
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from vitdense.compat.noise import is_news
from vitdense.streams import discard
from vitdense.untrusted.text import visible

WIDTH = 160
"""Letters of a line where stdout is no terminal."""


class Screen(Console):
    """A console that asks stdout what it is when it writes; at import, stdout may be something else."""

    @property
    def is_interactive(self) -> bool:
        """Whether a live bar can be drawn."""
        return self.is_terminal and not self.is_dumb_terminal

    @is_interactive.setter
    def is_interactive(self, at_import: bool) -> None:
        pass

    def render_str(self, text: str, *args: Any, **kwargs: Any) -> Text:
        """All texts that are printed, those of tables as well, with what a terminal would obey written out."""
        return super().render_str(visible(text), *args, **kwargs)

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        return super().size if self.is_terminal else ConsoleDimensions(WIDTH, 25)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        raise AttributeError('the size is that of the terminal')

    def on_broken_pipe(self) -> None:
        """Go on without a console, where what it was piped to has ended; the log file has all that follows."""
        discard(1)


if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')  # names in a script that the terminal lacks end no run
CONSOLE = Screen(soft_wrap=True, highlight=False, emoji=False, markup=False)


class ConsoleHandler(logging.Handler):
    """Writes through the console of rich, which keeps lines apart from a live progress bar."""

    def filter(self, record: logging.LogRecord) -> bool:
        wanted = record.levelno >= logging.WARNING and is_news(record)
        return super().filter(record) and getattr(record, 'to_console', wanted)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            CONSOLE.print(f'{record.levelname.lower()}: {text}', style='bold red' if record.levelno > 30 else 'yellow')
        else:
            CONSOLE.print(text)


TRACEBACKS = logging.Formatter()


def written_out(record: logging.LogRecord) -> bool:
    """A filter that lets all pass, without signs that a terminal would obey: names in a message are those of files."""
    record.msg, record.args = visible(record.getMessage()), ()
    if record.exc_info:
        record.exc_text = visible(TRACEBACKS.formatException(record.exc_info))
    return True


def say(message: str) -> None:
    """A line for the console and the log file."""
    MMLogger.get_current_instance().info(message, extra={'to_console': True})


def is_first_process() -> bool:
    """Whether this is the first of the processes of a launcher, which they need not have joined yet."""
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next(filter(None, ranks), '0') == '0'


EARLY: list[tuple[int, str]] = []
"""What was said before there was a log file, with its level."""


def note(message: str) -> None:
    """A line for the console before there is a runner, and for its log file, once it has one."""
    if is_first_process():
        CONSOLE.print(message)
    EARLY.append((logging.INFO, message))


def warn(message: str) -> None:
    """A warning for the console before there is a runner, and for its log file, once it has one."""
    if is_first_process():
        CONSOLE.print(f'warning: {message}', style='yellow')
    EARLY.append((logging.WARNING, message))


LOGGERS: list[MMLogger] = []
"""Those with a log file."""


def to_log_file(message: str, error: BaseException) -> None:
    """An error with its traceback for the log file alone, where there is one."""
    for logger in LOGGERS[-1:]:
        logger.error(message, exc_info=error, extra={'to_console': False})


class SayHandler(logging.Handler):
    """Says what the operators report, who know nothing of mmengine's logger."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def telling_once(handler: logging.FileHandler) -> Callable[[logging.LogRecord], None]:
    """What a handler does about records that it cannot write: a line for the first of them, nothing for the others."""
    told: list[str] = []

    def tell(record: logging.LogRecord) -> None:
        if not told:
            told.append(str(sys.exc_info()[1]))
            CONSOLE.print(f'warning: {handler.baseFilename} lacks what follows: {told[0]}', style='yellow')

    return tell


def quiet_console(logger: MMLogger) -> None:
    """Put a :class:`ConsoleHandler` in the place of mmengine's, which writes all to stdout."""
    operators = logging.getLogger('vitdense')
    operators.setLevel(logging.INFO)
    operators.handlers[:] = [SayHandler()]
    for i, handler in enumerate(logger.handlers):
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.__stdout__):
            ours = ConsoleHandler(handler.level)
            ours.filters = handler.filters
            logger.handlers[i] = ours
        elif isinstance(handler, logging.FileHandler):
            handler.handleError = telling_once(handler)  # type: ignore[assignment, method-assign]
    logger.addFilter(written_out)
    LOGGERS.append(logger)
    while EARLY:
        logger.log(*EARLY.pop(0), extra={'to_console': False})


@contextmanager
def silent_imports() -> Iterator[None]:
    """For what prints: onedl's packages, which optional parts they lack; COCO files, how they are read."""
    with redirect_stdout(io.StringIO()):
        yield


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Within it, neither this process nor those that it starts write to stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, 'w') as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
