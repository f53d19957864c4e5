"""What ``tools/`` run: ``arguments.py`` has their command lines, each has a file with ``run``, the others are parts.

Importing this package loads neither PyTorch nor the OpenMMLab packages. What is wrong with the arguments, the config
file or the files of the data is answered before a command's own file is imported, which takes some seconds.
"""

import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from vitdense.commands.arguments import COMMANDS, overview, parser_of
from vitdense.compat import requirements
from vitdense.names import unknown
from vitdense.signals import RECEIVED, Signals, end, ended, exit_code, interrupt, write
from vitdense.streams import outlast
from vitdense.version import __version__


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
    after Ctrl-C, 143 after SIGTERM, 129 after the end of the terminal; and 1 after anything else, with its traceback
    unless another process of the run is gone.
    """
    outlast()
    args = parser_of(command, program).parse_args(arguments)
    RECEIVED.clear()
    try:
        with Signals(interrupt):
            code = run(command, args)
    except KeyboardInterrupt:
        write(ended(signal.SIGINT))
        code = exit_code(signal.SIGINT)
    except Exception as error:
        from vitdense.commands.errors import is_for_users, is_of_a_peer, tell, tell_of_peer

        if is_for_users(error) and not args.traceback:
            tell(error)
            code = 2
        elif RECEIVED:  # it may have ended a worker, or another process of the run, before it was heard here
            write(f'{ended(RECEIVED[0])} ({type(error).__name__})')
            code = exit_code(RECEIVED[0])
        elif is_of_a_peer(error):
            tell_of_peer(error)
            code = 1
        else:
            raise
    sys.exit(code)


def run(command: str, args: Namespace) -> int | None:
    """Run a ``command``, the name of a file in this folder with a ``run``.

    Returns:
        The exit code, None for 0.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, KeyError, ImportError: it cannot do what it was told.
    """
    requirements.check()
    with Signals(interrupt):
        from vitdense.commands.early import check_arguments, read_early

        check_arguments(args)
        configured = [read_early(args)] if 'cfg_options' in args else []
    with Signals(end):  # the C++ of PyTorch aborts on an exception in some places of its import
        import_module('vitdense.engine')  # first: it silences what onedl's packages print
        module = import_module(f'{__name__}.{command}')
    return module.run(args, *configured)


__all__ = ['cli', 'main', 'parser_of', 'run']
