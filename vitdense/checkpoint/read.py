"""Weight files: where they are, and what is in them. No code that a file holds is ever run.

The format is told by a file's content, not by its name. A file that holds anything but plain values is refused, and
one that is no file of weights is described: what was expected, and what is there.
"""

import argparse
import io
import json
import os
import pickle
import pickletools
import re
import shlex
import zipfile
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor

from vitdense.checkpoint.layouts import RELEASES
from vitdense.names import nearest

SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors', '.npz', '.pkl')
EXPECTED = 'weights of PyTorch, of safetensors, in an .npz of NumPy or in a pickle of arrays'
AGAIN = 'delete it and copy or fetch it again'

HASH = re.compile(r'-(?!20\d{6}\.)([0-9a-f]{8,})\.')
"""The start of its SHA-256 in the name of a file, as ``torch.hub`` has it; eight digits from 20 on are a date."""

LEGACY = b'\x8a\n' + torch.serialization.MAGIC_NUMBER.to_bytes(10, 'little')
"""Near the start of what ``torch.save`` wrote before it wrote zip archives: five pickles, then bare storages."""

PICKLE = re.compile(rb'\x80[\x02-\x05]|\(dp\d+\n|\}q|ccollections\nOrderedDict\n')
"""Start of a pickled dict; the protocols 0 and 1 of Python 2 have no mark of their own."""

BINARIES = {
    b'\x89PNG': 'a PNG picture',
    b'\xff\xd8\xff': 'a JPEG picture',
    b'\x89HDF': 'a file of HDF5',
    b'\x1f\x8b': 'compressed by gzip',
}


class _Unfit(ValueError):
    """What is wrong with a file, as the end of a sentence that begins with its path."""


def fetch(checkpoint: str) -> Path:
    """Local path of a checkpoint; downloads at most once, also with several processes.

    Args:
        checkpoint: a key of ``RELEASES``, a path, or a URL. Downloads are kept in ``torch.hub.get_dir()/checkpoints``;
            where the file name has a hash, as in ``detr-r50-e632da11.pth``, the content has to have it, too.

    Raises:
        FileNotFoundError: no such file; the message lists the checkpoints beside it or the releases, nearest first.
        ValueError: a folder, or a URL without a file name.
        ConnectionError: the download failed, or what came is no file of weights; the message says which file to fetch
            and where to put it. Nothing is left behind.
    """
    url = RELEASES.get(str(checkpoint), str(checkpoint))
    if urlparse(url).scheme not in ('http', 'https'):
        return _existing(Path(url.removeprefix('file://')).expanduser())
    name = os.path.basename(urlparse(url).path)
    if not name:
        raise ValueError(f'checkpoint {url} is a folder, expected the URL of a file')
    path = Path(torch.hub.get_dir()) / 'checkpoints' / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{path}.lock'):
            if not path.is_file():
                _download(url, path)
    return path


def read(path: Path) -> Mapping:
    """Read a file of weights onto the CPU without running code from it.

    Reads what ``torch.save`` writes and wrote, safetensors, the ``.npz`` files of JAX, and pickled dicts of NumPy
    arrays, by Python 2 and 3; arrays become tensors.

    Args:
        path: a local file, as :func:`fetch` gives it.

    Returns:
        The dict that the file holds, as it is: with wrappers, and with what else is in it.

    Raises:
        OSError: there is no such file, or no permission to open it.
        ValueError: the file is empty, truncated or damaged, something else than weights, or needs classes that could
            run code. The message names ``path`` and what to do about it.
    """
    with path.open('rb') as file:
        size = file.seek(0, os.SEEK_END)
    try:
        content = _reader(path)(path)
        if not isinstance(content, Mapping):
            raise _Unfit(f'holds no weights: expected a dict of tensors, found {type(content).__name__}')
        if not _has_tensors(content):
            raise _Unfit(f'holds no weights: expected a dict of tensors, found one of {list(content)[:10]} without any')
    except _Unfit as error:
        raise ValueError(f'checkpoint {path} {error}') from error
    except Exception as error:  # whatever a library makes of a damaged file
        reason = str(error).split('WeightsUnpickler error:')[-1].strip().split('\n')[0]
        raise ValueError(
            f'checkpoint {path} cannot be read as a checkpoint of plain tensors, it may be truncated or damaged '
            f'({size} bytes are there; {type(error).__name__}: {reason}); {AGAIN}'
        ) from error
    return content


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f'checkpoint {path} is a folder, expected a file{_beside(path, path.name)}')
    bare = len(path.parts) == 1
    hint = _beside(path.absolute().parent, path.name)
    if bare:
        hint += f'; official releases, nearest first: {", ".join(nearest(path.stem, RELEASES)[:4])}, ...'
    elif 'work_dirs' in path.parts and not hint:
        hint = f'; the run {path.parent.name!r} writes it and has to come first'
    raise FileNotFoundError(f'no checkpoint file {str(path if bare else path.absolute())!r}{hint}')


def _beside(folder: Path, name: str) -> str:
    there = [file.name for file in folder.glob('*') if file.suffix in SUFFIXES]
    return f'; checkpoints in {folder}: {", ".join(nearest(name, there)[:5])}' if there else ''


def _download(url: str, path: Path) -> None:
    """Nothing appears at ``path`` before it is whole."""
    known = HASH.search(path.name)
    part = path.with_name(f'{path.name}.download')
    try:
        torch.hub.download_url_to_file(url, str(part), hash_prefix=known and known[1])
        _reader(part)
        part.replace(path)
    except Exception as error:
        found = f'what came {error}' if isinstance(error, _Unfit) else error
        raise ConnectionError(
            f'could not download {url} ({found}).\nFetch that file on a machine with internet access and put it at '
            f'{path}, or name its path in init_cfg.checkpoint of the backbone, or train from scratch with '
            '--no-pretrained.'
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _reader(path: Path) -> Callable[[Path], Any]:
    """The function that reads a file with such a content."""
    size = path.stat().st_size
    with path.open('rb') as file:
        start = file.read(512)
    if not start:
        raise _Unfit(f'is empty (0 bytes), expected {EXPECTED}; {AGAIN}')
    if LEGACY in start[:32]:
        return _read_legacy
    if PICKLE.match(start):
        return _read_pickle
    if all(byte >= 32 or byte in b'\t\n\r\f' for byte in start):
        raise _Unfit(_about_text(path, start.decode(errors='replace').strip()))
    if size < 16:
        raise _truncated(size)
    if start.startswith(b'PK\x03\x04'):
        return _reader_of_zip(path)
    if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= 100_000_000:  # the most that safetensors allows
        return _reader_of_safetensors(path)
    kind = next((kind for magic, kind in BINARIES.items() if start.startswith(magic)), 'of an unknown kind')
    raise _Unfit(f'is {kind}: it begins with the bytes {start[:8].hex(" ")}, expected {EXPECTED}')


def _about_text(path: Path, text: str) -> str:
    if text.startswith('version https://git-lfs'):
        return 'is a pointer of Git LFS in the place of the weights; `git lfs pull` in its repository fetches them'
    if path.name.endswith('.index.json') or '"weight_map"' in text:
        return 'is the list of the parts of sharded weights, expected one whole file with all of them'
    line = text.partition('\n')[0].rstrip()[:60]
    return (
        f'is a text file that begins with {line!r}, expected {EXPECTED}; where a download went wrong, delete it and '
        'fetch it again'
    )


def _truncated(size: int, expected: str = 'its end is missing') -> _Unfit:
    return _Unfit(f'is truncated: {size} bytes are there, {expected}; {AGAIN}')


def _reader_of_zip(path: Path) -> Callable[[Path], Any]:
    if not zipfile.is_zipfile(path):
        raise _truncated(path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inner = {name.partition('/')[2] for name in names}
    if 'constants.pkl' in inner:
        raise _needs_code(path, ['a program of TorchScript'], 'torch.jit.load({}, "cpu")')
    if 'data.pkl' in inner:
        return _read_zip
    if any(name.endswith('.npy') for name in names):
        return _read_npz
    raise _Unfit(f'is a zip archive of {", ".join(names[:3])}, expected {EXPECTED}; unpack it first')


def _reader_of_safetensors(path: Path) -> Callable[[Path], Any]:
    size = path.stat().st_size
    with path.open('rb') as file:
        header_end = 8 + int.from_bytes(file.read(8), 'little')
        header = file.read(header_end - 8)
    if size < header_end:
        raise _truncated(size, f'its header alone has {header_end}')
    entries = json.loads(header)
    entries.pop('__metadata__', None)
    expected = header_end + max((entry['data_offsets'][1] for entry in entries.values()), default=0)
    if size < expected:
        raise _truncated(size, f'{expected} are expected')
    return _read_safetensors


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        records = [record for record in archive.infolist() if not record.is_dir()]
        damaged = next((record.filename for record in records if record.external_attr & 0x10), None)  # said to be one
        if any(record.CRC for record in records):  # PyTorch does not look at the checksums, and need not write them
            damaged = damaged or archive.testzip()
    if damaged:
        raise _Unfit(f'is damaged: {damaged!r} in it is not what its table of contents says; {AGAIN}')
    return _load(path, lambda first: torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _read_legacy(path: Path) -> Any:
    with path.open('rb') as file:  # a first look: PyTorch takes a name that is cut short for that of a class
        for _ in range(5):
            deque(pickletools.genops(file), maxlen=0)
    return _load(path, lambda first: [first])


def _load(path: Path, find_classes: Callable[[str], list[str]]) -> Any:
    # An open file: from a path, torch.load would take the format by the suffix
    with torch.serialization.safe_globals([argparse.Namespace]), path.open('rb') as file:
        try:
            return torch.load(file, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError as error:
            refused = re.search(r'GLOBAL (\S+)', str(error))
            if refused:
                classes = sorted(find_classes(refused[1]))
            elif 'Unsupported operand' in str(error):
                classes = ['a protocol of pickle that PyTorch does not read safely']
            else:
                raise
            raise _needs_code(path, classes, 'torch.load({}, "cpu", weights_only=False)') from error


def _needs_code(path: Path, classes: list[str], load: str) -> _Unfit:
    """The refusal, with a command that keeps the weights; ``load`` is its expression that runs the file's code."""
    program = (
        f'import pickle, torch; c = {load.format(json.dumps(str(path)))}; '
        'c = c.get("model", c.get("state_dict", c)) if isinstance(c, dict) else c; '
        'c = c.state_dict() if hasattr(c, "state_dict") else c; '
        'c = {k: torch.as_tensor(v) for k, v in c.items() if hasattr(v, "shape")}; '
        f'torch.save({{"model": c}}, {json.dumps(str(path.with_name(path.stem + "_weights.pth")))})'
    )
    return _Unfit(
        f'cannot be read as a checkpoint of plain tensors: it needs {", ".join(classes)}, and to load them could run '
        'any code that is in the file. If you trust it, keep its weights alone, in the environment that wrote it:\n'
        f'  python -c {shlex.quote(program)}'
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in load_file(path).items()}  # not views of a file that may change


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {key: _tensor(arrays[key]) for key in arrays.files}


def _read_pickle(path: Path) -> Any:
    return _plain(_ArrayUnpickler(_Bytes(path.read_bytes()), path).load())


class _Dtype:
    """``numpy.dtype`` of a pickle: no state that a file brings reaches NumPy, which does not check it."""

    def __init__(self, code: str, *_: Any) -> None:
        self.name = code

    def __setstate__(self, state: tuple) -> None:
        self.name = state[1] + self.name

    def to_numpy(self) -> np.dtype:
        if not re.fullmatch(r'[<>=|]?[biufc]\d\d?', self.name):
            raise _Unfit(f'holds an array of type {self.name!r}, expected numbers')
        return np.dtype(self.name)


class _Array:
    """``numpy.ndarray`` of a pickle, of which Python first makes an empty one."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, in_columns, data = state
        self.array = _from_buffer(data, dtype, shape, 'F' if in_columns else 'C')


def _from_buffer(data: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: str, *_: Any) -> np.ndarray:
    data = data.encode('latin1') if isinstance(data, str) else data
    return np.frombuffer(data, dtype.to_numpy()).reshape(shape, order=order)


_KNOWN = {
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


class _Bytes(io.BytesIO):
    """Content whose end is not to be met: ``pickle`` takes what is left for all that it asked for."""

    def read(self, size: int = -1) -> bytes:
        return self._whole(super().read(size), size)

    def readline(self, size: int = -1) -> bytes:
        line = super().readline(size)
        return self._whole(line, size if line.endswith(b'\n') else len(line) + 1)

    def _whole(self, found: bytes, size: int) -> bytes:
        if len(found) < size:
            raise EOFError(f'it ends after {len(found)} of {size} bytes of a value')
        return found


class _ArrayUnpickler(pickle._Unpickler):
    """Written in Python: the one in C makes room for as many objects as the file says that it has.

    So does a ``bytearray`` for bytes; here, bytes are read in its place.
    """

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8}

    def __init__(self, file: _Bytes, path: Path) -> None:
        super().__init__(file, encoding='latin1')
        self.path = path

    def find_class(self, module: str, name: str) -> Callable:
        # NumPy 1 wrote numpy.core, NumPy 2 writes numpy._core
        full = f'{module}.{name}'.replace('numpy._core.', 'numpy.core.').replace('__builtin__.', 'builtins.')
        if full not in _KNOWN:
            raise _needs_code(self.path, [f'{module}.{name}'], 'pickle.load(open({}, "rb"), encoding="latin1")')
        return _KNOWN[full].__call__  # on which a pickle can set no attributes


def _plain(value: Any) -> Any:
    """``value`` with tensors in the place of arrays."""
    if isinstance(value, _Array):
        return _tensor(value.array)
    if isinstance(value, np.ndarray):
        return _tensor(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value


def _tensor(array: np.ndarray) -> Tensor | np.ndarray:
    """A tensor with a copy of numbers; an array of anything else, such as names, is left as it is."""
    if array.dtype == 'V2':  # as which NumPy stores the bfloat16 of JAX
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if array.dtype.kind not in 'biufc':
        return array
    return torch.from_numpy(array.astype(array.dtype.newbyteorder('='), order='C'))


def _has_tensors(content: Mapping, depth: int = 4) -> bool:
    return any(
        isinstance(value, Tensor) or (depth > 0 and isinstance(value, Mapping) and _has_tensors(value, depth - 1))
        for value in content.values()
    )
