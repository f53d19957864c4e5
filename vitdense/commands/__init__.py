"""What ``tools/`` run: ``arguments.py`` has their command lines, each has a file with ``run``, the others are parts.

Importing this package loads neither PyTorch nor the OpenMMLab packages. What is wrong with the arguments, the config
file or the files of the data is answered before a command's own file is imported, which takes some seconds.
"""

import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from vitdense.commands.arguments import COMMANDS, overview, parser_of
from vitdense.compat import requirements
from vitdense.names import unknown
from vitdense.version import __version__

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def cli(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``vitdense COMMAND ...``, by default with the arguments of this process, and exit, see :func:`main`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = overview('vitdense', __version__)
    if not given or given[0].startswith('-'):
        parser.parse_args(given)
        parser.error(f'expected a command, one of {", ".join(COMMANDS)}')
    command = given[0]
    if command not in COMMANDS:
        parser.error(unknown('command', command, COMMANDS))
    main(command, given[1:], f'vitdense {command}')


def main(command: str, arguments: Sequence[str] | None = None, program: str | None = None) -> NoReturn:
    """Run a ``command`` as ``tools/`` does, by default with the arguments of this process, and exit.

    The code is that of the command, or 0; 2 after an error that is for users, which is told without a traceback; 130
    after Ctrl-C; and 1 after anything else, with its traceback.
    """
    args = parser_of(command, program).parse_args(arguments)
    try:
        code = run(command, args)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        code = INTERRUPTED
    except Exception as error:
        from vitdense.commands.errors import is_for_users, tell

        if args.traceback or not is_for_users(error):
            raise
        tell(error)
        code = 2
    sys.exit(code)


def run(command: str, args: Namespace) -> int | None:
    """Run a ``command``, the name of a file in this folder with a ``run``.

    Returns:
        The exit code, None for 0.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, KeyError, ImportError: it cannot do what it was told.
    """
    requirements.check()
    with interruptible():
        from vitdense.commands.early import check_arguments, read_early

        check_arguments(args)
        configured = [read_early(args)] if 'cfg_options' in args else []
    with ended_at_once():
        import_module('vitdense.engine')  # first: it silences what onedl's packages print
        module = import_module(f'{__name__}.{command}')
    return module.run(args, *configured)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Ctrl-C at the end where it got lost: some packages catch everything while they are imported."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []

    def interrupt(number: int, frame: object) -> NoReturn:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process while PyTorch is imported, whose C++ aborts on an exception in some places."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> NoReturn:
        os.write(2, b'interrupted\n')
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


__all__ = ['cli', 'main', 'parser_of', 'run']
