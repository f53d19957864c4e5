"""What ``tools/`` run: a command is a file with ``add_options`` and ``run``; the other files are parts of them."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType


def parser_of(command: str) -> argparse.ArgumentParser:
    """The command line of a ``command``, the name of a file in this folder."""
    parser = argparse.ArgumentParser()
    _load(command).add_options(parser)
    return parser


def main(command: str, arguments: Sequence[str] | None = None) -> None:
    """Run a ``command`` as ``tools/`` does, by default with the arguments of this process, and exit."""
    args = parser_of(command).parse_args(arguments)
    sys.exit(_load(command).run(args))


def _load(command: str) -> ModuleType:
    import_module('vitdense.engine')  # first: it keeps quiet what onedl's packages print
    return import_module(f'{__name__}.{command}')
