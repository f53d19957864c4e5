"""Outputs of a command that outlive the terminal, the pipe or the disk that they go to."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)
"""Errors of a write to a pipe that nobody reads and to a terminal that was closed."""


class Lasting(io.FileIO):
    """A descriptor whose writes cannot fail: what is no longer there is replaced by nothing."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in GONE:
                discard(self.fileno())
            return memoryview(data).nbytes  # of a disk that is full this is lost, and the next may not be


def discard(descriptor: int) -> None:
    """Let everything that is written to a descriptor go nowhere from now on."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def outlast() -> None:
    """Let no write to stdout and stderr of this process fail; the log file of a run has all of it.

    Where the process was started without one of them, the next file that it opens would be taken for it.
    """
    for descriptor, name in enumerate(('stdin', 'stdout', 'stderr')):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, 'w' if descriptor else 'r', closefd=False))
            continue
        stream = getattr(sys, name)
        if descriptor and stream is getattr(sys, f'__{name}__') and isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):
                stream.flush()
            setattr(sys, name, _lasting(stream))


def _lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(Lasting(stream.fileno(), 'wb', closefd=False)),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
