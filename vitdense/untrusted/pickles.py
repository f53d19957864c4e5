"""What a pickle would make, found out without making it: no class is looked up, and no key of a dict is hashed.

That matters even where what a pickle may call is restricted: the hash of one tuple that holds another twice, and that
one a third twice, and so on, takes time without end while the pickle is being read.
"""

import io
import os
import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np

from .values import UnboundedError, check_values


class Whole:
    """An open file whose end is not to be met.

    ``pickle`` takes what is left for all that it asked for, and makes room for it before.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        here = file.tell()
        self._size = file.seek(0, os.SEEK_END)
        file.seek(here)

    def read(self, size: int = -1) -> bytes:
        """As of a file.

        Raises:
            EOFError: fewer bytes are left.
        """
        left = self._size - self._file.tell()
        if size > left:
            raise EOFError(f'it ends after {left} of {size} bytes of a value')
        return self._file.read(size)

    def readline(self) -> bytes:
        """As of a file.

        Raises:
            EOFError: no end of a line is left.
        """
        line = self._file.readline()
        if not line.endswith(b'\n'):
            raise EOFError(f'it ends after {len(line)} bytes of a line')
        return line


class _Made(list):
    """In the place of a dict, a set, an object, or what a call gives: all that belongs to it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.append((key, value))

    def add(self, value: Any) -> None:
        """As a set."""
        self.append(value)


class _Dtype:
    """``numpy.dtype``, which takes any state: one that does not belong to it lets arrays reach beyond their memory."""

    def __init__(self, code: str) -> None:
        if not re.fullmatch(r'[<>=|]?([biufc]\d\d?|[US]\d{1,6}|O8?)', str(code)):
            raise UnboundedError(f'holds an array of type {code!r}, expected numbers or texts')
        self.name = code
        self.state = np.dtype(code).__reduce__()[2]

    def check(self, state: Any) -> None:
        """Refuse a state that NumPy does not write for this type, whatever the order of bytes."""
        if not isinstance(state, tuple) or state[:1] + state[2:] != self.state[:1] + self.state[2:]:
            raise UnboundedError(f'holds an array of type {self.name!r} with the state {str(state)[:80]}')


class _Outline(pickle._Unpickler):
    """Makes lists of everything; written in Python, it makes no room for what the file only says that it has."""

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: Whole) -> None:
        super().__init__(file, encoding='latin1')
        self.made: list[_Made] = []

    def make(self, parts: Any = ()) -> _Made:
        """A list in the place of something, which the pickle may drop again."""
        self.made.append(_Made(parts))
        return self.made[-1]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('numpy', 'dtype'):
            return self._make_dtype
        return lambda *arguments: self.make(arguments)

    def _make_dtype(self, code: str, *_: Any) -> '_Dtype':
        return _Dtype(code)

    def get_extension(self, code: int) -> None:
        self.append(lambda *arguments: self.make(arguments))

    def persistent_load(self, pid: Any) -> Any:
        return self.make([pid])

    def _instantiate(self, kind: Any, arguments: list) -> None:
        self.append(self.make(arguments))

    def _push_made(self) -> None:
        self.append(self.make())

    def _gather(self) -> None:
        parts = self.pop_mark()  # from now on, ``append`` is of the list around it
        self.append(self.make(parts))

    def _add_items(self) -> None:
        parts = self.pop_mark()
        self.stack[-1].extend(parts)

    def _new_object(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.make([self.stack[-1], arguments])

    def _new_object_by_keywords(self) -> None:
        keywords = self.stack.pop()
        arguments = self.stack.pop()
        self.stack[-1] = self.make([self.stack[-1], arguments, keywords])

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], _Dtype):
            self.stack[-1].check(state)
        else:
            self.stack[-1] = self.make([self.stack[-1], state])

    dispatch.update(
        {
            pickle.EMPTY_DICT[0]: _push_made,
            pickle.EMPTY_SET[0]: _push_made,
            pickle.DICT[0]: _gather,
            pickle.FROZENSET[0]: _gather,
            pickle.ADDITEMS[0]: _add_items,
            pickle.SETITEMS[0]: _add_items,
            pickle.NEWOBJ[0]: _new_object,
            pickle.NEWOBJ_EX[0]: _new_object_by_keywords,
            pickle.BUILD[0]: _build,
            pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8,  # type: ignore[attr-defined]
        }
    )


def check_pickle(file: BinaryIO) -> None:
    """Read one pickle of an open file, up to its end, without making anything.

    Raises:
        UnboundedError: what it would make is no tree that can be walked through, see
            :func:`~vitdense.untrusted.values.check_values`.
        Exception: whatever Python says of a damaged pickle.
    """
    outline = _Outline(Whole(file))
    check_values([outline.load(), outline.made])


def check_pickled(content: bytes) -> None:
    """:func:`check_pickle` of bytes."""
    check_pickle(io.BytesIO(content))
