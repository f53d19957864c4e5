"""Work in a process of its own that may take only so much memory and time."""

import os
import pickle
import resource
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def bounded(work: Callable[[], Any], megabytes: int = 400, seconds: float = 20) -> Any:
    """What ``work`` returns, or the exception that it raises.

    Args:
        megabytes: that it may ask for beyond what this process has.
        seconds: that it may take, of the clock and of the processor.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            pages = int(Path('/proc/self/statm').read_text().split()[0])
            most = pages * os.sysconf('SC_PAGE_SIZE') + megabytes * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            try:
                result = work()
            except Exception as error:
                result = error.with_traceback(None)
                result.__cause__ = result.__context__ = None
            os.write(writer, pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        there, _, _ = select.select([reader], [], [], seconds)
        content = b''
        while there and (part := os.read(reader, 2**16)):
            content += part
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert there, f'it is not ready after {seconds} s'
    assert content, 'it was killed, or ran out of memory'
    return pickle.loads(content)


def refusal(work: Callable[[], Any], kind: type[Exception] = ValueError, **limits: float) -> str:
    """The message of the error, of this ``kind``, that ``work`` raises within the limits of :func:`bounded`."""
    found = bounded(work, **limits)  # type: ignore[arg-type]
    assert isinstance(found, kind), found
    assert not isinstance(found, MemoryError)
    return str(found)


class Harm:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)
