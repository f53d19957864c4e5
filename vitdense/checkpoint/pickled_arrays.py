"""Pickled dicts of NumPy arrays, as detectron2 publishes weights, read without running code from them."""

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from vitdense.untrusted.pickles import Whole, check_pickled


class NotPlainError(ValueError):
    """A pickle needs something else than arrays and plain values; the message is the name of that."""


def load_arrays(content: bytes) -> Any:
    """What is pickled in ``content``, by Python 2 or 3, with tensors in the place of arrays.

    Raises:
        NotPlainError: it needs another class or function.
        Exception: whatever Python says of a damaged pickle.
    """
    return _plain(_ArrayUnpickler(content).load())


def load_plain(content: bytes) -> Any:
    """What is pickled in ``content``: plain values, arrays, tensors, and mmengine's structures with these.

    Raises:
        NotPlainError: it needs another class or function.
        UnboundedError: it would make more values than anybody can walk through.
        Exception: whatever Python says of a damaged pickle.
    """
    check_pickled(content)
    return _arrays(_DataUnpickler(content).load())


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

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8,  # type: ignore[attr-defined]
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(Whole(io.BytesIO(content)), encoding='latin1')

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 1 wrote numpy.core, NumPy 2 writes numpy._core
        full = f'{module}.{name}'.replace('numpy._core.', 'numpy.core.').replace('__builtin__.', 'builtins.')
        if full not in _KNOWN:
            raise NotPlainError(f'{module}.{name}')
        return _KNOWN[full].__call__  # on which a pickle can set no attributes


STRUCTURES = (
    *(('mmengine.structures', name) for name in ('BaseDataElement', 'InstanceData', 'PixelData')),
    ('mmdet.structures', 'DetDataSample'),
    ('mmseg.structures', 'SegDataSample'),
)
"""Classes of predictions and proposals, which hold values and run nothing as they are filled."""


class _DataUnpickler(_ArrayUnpickler):
    """Reads tensors and ``STRUCTURES`` as well."""

    stack: list[Any]
    load_build: Callable[[], None]

    def _build(self) -> None:
        if callable(self.stack[-2]):  # the class itself, or a function
            raise NotPlainError(f'another {self.stack[-2]}')
        self.load_build()

    dispatch: ClassVar[dict[int, Any]] = {**_ArrayUnpickler.dispatch, pickle.BUILD[0]: _build}

    def find_class(self, module: str, name: str) -> Any:
        for home, kind in STRUCTURES:
            if name == kind and module.startswith(home):
                return getattr(import_module(home), kind)
        full = f'{module}.{name}'.replace('__builtin__.', 'builtins.').replace('copy_reg.', 'copyreg.')
        return _OF_DATA[full].__call__ if full in _OF_DATA else super().find_class(module, name)


def _storage_of(content: bytes | str) -> Any:
    """A storage as ``torch.save`` wrote it, read as weights are."""
    data = content.encode('latin1') if isinstance(content, str) else content
    return torch.load(io.BytesIO(data), 'cpu', weights_only=True)


def _reconstructed(kind: Any, base: type, state: Any) -> Any:
    """A structure without its values, as pickles of the protocols 0 and 1 begin one."""
    if kind not in [getattr(import_module(home), name) for home, name in STRUCTURES]:
        raise NotPlainError(str(kind))
    return kind.__new__(kind)


_OF_DATA: dict[str, Any] = {
    'torch.storage._load_from_bytes': _storage_of,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
    'copyreg._reconstructor': _reconstructed,
    'builtins.object': object,
    'builtins.set': set,
    'builtins.frozenset': frozenset,
}
"""What a pickle of data may call besides, and what is called in its place."""


def _arrays(value: Any) -> Any:
    """``value`` with the arrays that were read in the place of what read them."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_arrays, value))
    if type(value).__name__ in dict(map(reversed, STRUCTURES)):  # type: ignore[arg-type]
        vars(value).update({key: _arrays(item) for key, item in vars(value).items()})
    return value


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
