"""What is in a file of weights. No code that a file holds is ever run, and none takes memory or time without end.

The format is told by a file's content, not by its name. A file that holds anything but plain values is refused, and
one that is no file of weights is described: what was expected, and what is there.
"""

import argparse
import io
import json
import math
import os
import pickle
import re
import shlex
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitdense.checkpoint.pickled_arrays import NotPlainError, load_arrays, tensor_of
from vitdense.checkpoint.seal import is_intact
from vitdense.untrusted.files import check_regular, check_zip, most_bytes
from vitdense.untrusted.pickles import check_pickle
from vitdense.untrusted.values import UnboundedError, check_values

EXPECTED = 'weights of PyTorch, of safetensors, in an .npz of NumPy or in a pickle of arrays'
AGAIN = 'delete it and copy or fetch it again'

VIEWS = 2**32
"""Bytes of all tensors of any file: a view takes memory where it is copied, which is when a model is as large."""

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


class UnfitError(ValueError):
    """What is wrong with a file, as the end of a sentence that begins with its path."""


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
    content = read_content(path)
    problem = ''
    if not isinstance(content, Mapping):
        problem = type(content).__name__
    elif not _has_tensors(content):
        problem = f'one of {list(content)[:10]} without any'
    if problem:
        raise ValueError(f'checkpoint {path} holds no weights: expected a dict of tensors, found {problem}')
    return content


def read_content(path: Path) -> Any:
    """What :func:`read` reads, whatever plain values it is.

    Raises:
        OSError, ValueError: as there, but for what is not weights.
    """
    check_regular(path)
    with path.open('rb') as file:
        size = file.seek(0, os.SEEK_END)
    try:
        content = reader_of(path)(path)
        check_values(content)
        _check_sizes(content, size)
        return content
    except (UnfitError, UnboundedError) as error:
        raise ValueError(f'checkpoint {path} {error}') from None
    except Exception as error:  # whatever a library makes of a damaged file
        reason = str(error).split('WeightsUnpickler error:')[-1].strip().split('\n')[0]
        raise ValueError(
            f'checkpoint {path} cannot be read as a checkpoint of plain tensors, it may be truncated or damaged '
            f'({size} bytes are there; {type(error).__name__}: {reason}); {AGAIN}'
        ) from error


def reader_of(path: Path) -> Callable[[Path], Any]:
    """The function that reads a file with such a content."""
    size = path.stat().st_size
    with path.open('rb') as file:
        start = file.read(512)
    if not start:
        raise UnfitError(f'is empty (0 bytes), expected {EXPECTED}; {AGAIN}')
    if LEGACY in start[:32]:
        return _read_legacy
    if PICKLE.match(start):
        return _read_pickle
    if all(byte >= 32 or byte in b'\t\n\r\f' for byte in start):
        raise UnfitError(_about_text(path, start.decode(errors='replace').strip()))
    if size < 16:
        raise _truncated(size)
    if start.startswith(b'PK\x03\x04'):
        return _reader_of_zip(path)
    if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= 100_000_000:  # the most that safetensors allows
        return _reader_of_safetensors(path)
    kind = next((kind for magic, kind in BINARIES.items() if start.startswith(magic)), 'of an unknown kind')
    raise UnfitError(f'is {kind}: it begins with the bytes {start[:8].hex(" ")}, expected {EXPECTED}')


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


def _truncated(size: int, expected: str = 'its end is missing') -> UnfitError:
    return UnfitError(f'is truncated: {size} bytes are there, {expected}; {AGAIN}')


def _reader_of_zip(path: Path) -> Callable[[Path], Any]:
    if not zipfile.is_zipfile(path):
        raise _truncated(path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        try:
            check_zip(archive, path.stat().st_size)
        except ValueError as error:
            raise UnfitError(str(error)) from None
    inner = {name.partition('/')[2] for name in names}
    if 'constants.pkl' in inner:
        raise _needs_code(path, ['a program of TorchScript'], 'torch.jit.load({}, "cpu")')
    if 'data.pkl' in inner:
        return _read_zip
    if any(name.endswith('.npy') for name in names):
        return _read_npz
    raise UnfitError(f'is a zip archive of {", ".join(names[:3])}, expected {EXPECTED}; unpack it first')


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
    intact = is_intact(path)
    if intact is False:
        raise UnfitError(f'is damaged: its content is not that of its check sum; {AGAIN}')
    with zipfile.ZipFile(path) as archive:
        records = [record for record in archive.infolist() if not record.is_dir()]
        damaged = next((record.filename for record in records if record.external_attr & 0x10), None)  # said to be one
        if not intact and any(record.CRC for record in records):  # which PyTorch neither reads nor has to write
            damaged = damaged or archive.testzip()
        if damaged:
            raise UnfitError(f'is damaged: {damaged!r} in it is not what its table of contents says; {AGAIN}')
    check_pickle(io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record('data.pkl')))  # that PyTorch will read
    return _load(path, lambda first: torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _read_legacy(path: Path) -> Any:
    with path.open('rb') as file:  # PyTorch takes a name that is cut short for that of a class
        for _ in range(5):
            check_pickle(file)
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


def _needs_code(path: Path, classes: list[str], load: str) -> UnfitError:
    """The refusal, with a command that keeps the weights; ``load`` is its expression that runs the file's code."""
    program = (
        f'import pickle, torch; c = {load.format(json.dumps(str(path)))}; '
        'c = c.get("model", c.get("state_dict", c)) if isinstance(c, dict) else c; '
        'c = c.state_dict() if hasattr(c, "state_dict") else c; '
        'c = {k: torch.as_tensor(v) for k, v in c.items() if hasattr(v, "shape")}; '
        f'torch.save({{"model": c}}, {json.dumps(str(path.with_name(path.stem + "_weights.pth")))})'
    )
    return UnfitError(
        f'cannot be read as a checkpoint of plain tensors: it needs {", ".join(classes)}, and to load them could run '
        'any code that is in the file. If you trust it, keep its weights alone, in the environment that wrote it:\n'
        f'  python -c {shlex.quote(program)}'
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in load_file(path).items()}  # not views of a file that may change


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        for entry in arrays.zip.infolist():
            _check_array(arrays.zip, entry)
        return {key: tensor_of(arrays[key]) for key in arrays.files}


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """NumPy makes room for the shape that an array says it has, whatever comes then."""
    with archive.open(entry) as file:
        if file.read(6) != b'\x93NUMPY':
            return
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if math.prod(shape) * dtype.itemsize > entry.file_size:
        raise UnfitError(f'is damaged: {entry.filename} has {entry.file_size} bytes for the shape {shape} of {dtype}')


def _check_sizes(content: Any, size: int) -> None:
    """Refuse tensors that are many times the file: a view can repeat one number for ever."""
    claimed, most = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(content)), most_bytes(size, VIEWS)
    if claimed > most:
        raise UnfitError(
            f'has {size} bytes, and tensors of {claimed} that repeat what is in them, expected at most {most}'
        )


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors, each as often as the content holds the list or dict with it, which is walked through once."""
    seen, stack = set(), [content]
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            stack += value.values() if isinstance(value, Mapping) else value


def _read_pickle(path: Path) -> Any:
    with path.open('rb') as file:
        check_pickle(file)
    try:
        return load_arrays(path.read_bytes())
    except NotPlainError as error:
        raise _needs_code(path, [str(error)], 'pickle.load(open({}, "rb"), encoding="latin1")') from error


def _has_tensors(content: Mapping, depth: int = 4) -> bool:
    return any(
        isinstance(value, Tensor) or (depth > 0 and isinstance(value, Mapping) and _has_tensors(value, depth - 1))
        for value in content.values()
    )
