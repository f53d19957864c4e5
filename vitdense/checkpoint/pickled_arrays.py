"""Pickled dicts of NumPy arrays, as detectron2 publishes weights, read without running code from them."""

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vitdense.untrusted.pickles import Whole


class NotPlainError(ValueError):
    """A pickle needs something else than arrays and plain values; the message is the name of that."""


def load_arrays(content: bytes) -> Any:
    """What is pickled in ``content``, by Python 2 or 3, with tensors in the place of arrays.

    Raises:
        NotPlainError: it needs another class or function.
        Exception: whatever Python says of a damaged pickle.
    """
    return _plain(_ArrayUnpickler(content).load())


def tensor_of(array: np.ndarray) -> Tensor | np.ndarray:
    """A tensor with a copy of numbers; an array of anything else, such as names, is left as it is."""
    if array.dtype == 'V2':  # as which NumPy stores the bfloat16 of JAX
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if array.dtype.kind not in 'biufc':
        return array
    return torch.from_numpy(array.astype(array.dtype.newbyteorder('='), order='C'))


class _Dtype:
    """``numpy.dtype`` of a pickle: no state that a file brings reaches NumPy, which does not check it."""

    def __init__(self, code: str, *_: Any) -> None:
        self.name = code

    def __setstate__(self, state: tuple) -> None:
        self.name = state[1] + self.name

    def to_numpy(self) -> np.dtype:
        if not re.fullmatch(r'[<>=|]?[biufc]\d\d?', self.name):
            raise ValueError(f'an array of type {self.name!r}, expected numbers')
        return np.dtype(self.name)


class _Array:
    """``numpy.ndarray`` of a pickle, of which Python first makes an empty one."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, in_columns, data = state
        self.array = _from_buffer(data, dtype, shape, 'F' if in_columns else 'C')


def _from_buffer(
    data: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: Literal['C', 'F'], *_: Any
) -> np.ndarray:
    data = data.encode('latin1') if isinstance(data, str) else data
    return np.frombuffer(data, dtype.to_numpy()).reshape(shape, order=order)


_KNOWN: dict[str, Any] = {
    'collections.OrderedDict': OrderedDict,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': object,
    'numpy.core.multiarray._reconstruct': _Array,
    'numpy.core.multiarray.scalar': lambda dtype, data: _from_buffer(data, dtype, (), 'C').item(),
    'numpy.core.numeric._frombuffer': _from_buffer,
    '_codecs.encode': lambda text, encoding: text.encode('latin1'),
    'builtins.bytes': lambda: b'',
}
"""What a pickle of arrays may call, and what is called in its place."""


class _ArrayUnpickler(pickle._Unpickler):
    """Written in Python: the one in C makes room for as many objects as the file says that it has.

    So does a ``bytearray`` for bytes; here, bytes are read in its place.
    """

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8}  # type: ignore[attr-defined]

    def __init__(self, content: bytes) -> None:
        super().__init__(Whole(io.BytesIO(content)), encoding='latin1')

    def find_class(self, module: str, name: str) -> Callable:
        # NumPy 1 wrote numpy.core, NumPy 2 writes numpy._core
        full = f'{module}.{name}'.replace('numpy._core.', 'numpy.core.').replace('__builtin__.', 'builtins.')
        if full not in _KNOWN:
            raise NotPlainError(f'{module}.{name}')
        return _KNOWN[full].__call__  # on which a pickle can set no attributes


def _plain(value: Any) -> Any:
    """``value`` with tensors in the place of arrays."""
    if isinstance(value, _Array):
        return tensor_of(value.array)
    if isinstance(value, np.ndarray):
        return tensor_of(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value
