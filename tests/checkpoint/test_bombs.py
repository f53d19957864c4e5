"""Files of weights that would take memory or time without end are refused at once."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bounded import bounded, refusal

from vitdense.checkpoint.read import read

LAYERS = 40
ZEROS = np.zeros(75_000_000, np.float32)
"""300 MB, which are packed to a thousandth of that."""


def shared(kind: type) -> list | tuple:
    """A list or tuple of 2 ** 40 others."""
    value: list | tuple = kind()
    for _ in range(LAYERS):
        value = kind((value, value))
    return value


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def within_itself() -> list:
    value: list = []
    value.append(value)
    return value


def with_key() -> bytes:
    """A pickle of a dict whose key takes 2 ** 40 steps to hash, and which it drops again; then weights."""
    key = pickle.dumps(shared(tuple), 2)[2:-1]
    return b'\x80\x02}' + key + b'K\x01s0' + pickle.dumps({'a': np.zeros(3)}, 2)[2:]


def deep(depth: int) -> bytes:
    return b'\x80\x02}X\x01\x00\x00\x00a' + b']' * depth + b'a' * (depth - 1) + b's.'


def as_zip(path: Path, content: bytes) -> Path:
    """A file of ``torch.save`` with such a pickle."""
    torch.save({'a': torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, record in records.items():
            archive.writestr(name, content if name.endswith('/data.pkl') else record)
    return path


def as_legacy(path: Path, content: bytes) -> Path:
    """The same of the older format: number, version, system, then the pickle."""
    head = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {'little_endian': True}]
    path.write_bytes(b''.join(pickle.dumps(one, 2) for one in head) + content + pickle.dumps([], 2))
    return path


def as_pickle(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


FORMS = [as_zip, as_legacy, as_pickle]


@pytest.mark.parametrize('form', FORMS)
def test_pickles_that_no_walk_comes_to_the_end_of(tmp_path, form):
    contents = {
        'holds more than 20000000 values': [pickle.dumps({'a': shared(list)}, 2), with_key()],
        'within itself': [pickle.dumps({'a': within_itself()}, 2)],
        'more than 500 deep': [deep(100_000), deep(600)],
    }
    for message, pickles in contents.items():
        for content in pickles:
            path = form(tmp_path / 'a.pth', content)
            assert message in refusal(lambda path=path: read(path))


@pytest.mark.parametrize('form', FORMS)
def test_what_stands_in_several_places_is_read(tmp_path, form):
    names = ['cat', 'dog']
    content = pickle.dumps({'classes': [names] * 1000, 'deep': nested(90), (1, 'b'): 3, 'twice': (names, names)}, 2)
    path = form(tmp_path / 'a.pth', content)
    with pytest.raises(ValueError, match='holds no weights') as error:
        read(path)
    assert "found one of ['classes', 'deep', (1, 'b'), 'twice'] without any" in str(error.value)


@pytest.mark.parametrize('form', [as_zip, as_legacy])
def test_types_of_arrays_are_those_that_numpy_writes(tmp_path, form):
    """With another state, an array of bytes can be told to hold addresses, or to be longer than it is."""
    arrays = [np.zeros(3), np.array([True]), np.array([1, 2], '>i4'), np.ones((2, 1), np.float16)]
    path = form(tmp_path / 'a.pth', pickle.dumps({'a': torch.nn.ReLU, 'b': arrays}, 2))
    with pytest.raises(ValueError, match=r'it needs torch\.nn\.modules\.activation\.ReLU, and'):  # not for its arrays
        read(path)
    of_dtype = b'cnumpy\ndtype\n'
    states = [
        (b'V8', (3, '|', None, ('a',), {'a': 0}, 8, 1, 27)),
        (b'V8', (3, '|', None, None, None, 8000, 1, 0)),
        (b'O8', (3, '|', None, None, None, -1, -1, 0)),
        (b'f8', (3, '<', ('f8', (9,)), None, None, -1, -1, 0)),
        (b'U3', (3, '<', None, None, None, 12000, 4, 8)),
    ]
    for code, state in states:
        built = (
            of_dtype + b'X' + len(code).to_bytes(4, 'little') + code + b'\x85R' + pickle.dumps(state, 2)[2:-1] + b'b'
        )
        path = form(tmp_path / 'a.pth', b'\x80\x02}X\x01\x00\x00\x00a' + built + b's.')
        assert 'holds an array of type' in refusal(lambda path=path: read(path))


def test_packed_arrays(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez_compressed(path, a=ZEROS)
    size = path.stat().st_size
    assert size < 1_000_000
    assert f'unpacks to {ZEROS.nbytes + 128} bytes and has {size} itself' in refusal(lambda: read(path), megabytes=200)
    np.savez_compressed(path, a=ZEROS[:1_000_000])
    assert bounded(lambda: read(path)['a'].shape) == (1_000_000,), 'what is small may be zero'


def test_packed_records_of_torch(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save({'a': torch.from_numpy(ZEROS)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    del records
    assert path.stat().st_size < 2_000_000
    assert 'unpacks to 3000' in refusal(lambda: read(path), megabytes=200)


def test_a_thousand_names_of_one_record(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, a=np.zeros(125_000))
    with zipfile.ZipFile(path, 'a') as archive:
        [entry] = archive.filelist
        for number in range(1000):
            another = zipfile.ZipInfo(f'{number}.npy')
            for field in ('header_offset', 'file_size', 'compress_size', 'CRC'):
                setattr(another, field, getattr(entry, field))
            archive.filelist.append(another)
        archive._didModify = True
    assert 'unpacks to 1001' in refusal(lambda: read(path))


def test_arrays_that_claim_more_than_they_have(tmp_path):
    path, content = tmp_path / 'a.npz', io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {'descr': '<f4', 'fortran_order': False, 'shape': (10**6, 10**6)})
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.npy', content.getvalue() + bytes(64))
    assert 'a.npy has 192 bytes for the shape (1000000, 1000000) of float32' in refusal(lambda: read(path))


@pytest.mark.parametrize('zipped', [True, False])
def test_views_that_repeat_one_number(tmp_path, zipped):
    path = tmp_path / 'a.pth'
    torch.save({'a': [torch.zeros(1).expand(10**6, 10**6)]}, path, _use_new_zipfile_serialization=zipped)
    message = refusal(lambda: read(path))
    assert f'has {path.stat().st_size} bytes, and tensors of 4000000000000 that repeat what is in them' in message


def test_storages_that_claim_more_than_they_have(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save({'a': torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for claimed in (2**28, 2**45):  # 1 GB, 128 TB
        number = pickle.dumps(claimed, 2)[2:-1]
        path.write_bytes(whole.replace(b'cpuq\x06K\x04', b'cpuq\x06' + number, 1))
        assert path.read_bytes() != whole
        assert 'cannot be read as a checkpoint' in refusal(lambda: read(path))


def test_headers_of_safetensors(tmp_path):
    path = tmp_path / 'a.safetensors'
    huge = json.dumps({'a': {'dtype': 'F32', 'shape': [10**6, 10**6], 'data_offsets': [0, 4]}})
    for header in (
        huge,
        '{"a": ' + '[' * 100_000 + ']' * 100_000 + '}',
        '{"a": 3}',
        '{"a": {"data_offsets": [0, -8]}}',
    ):
        path.write_bytes(len(header).to_bytes(8, 'little') + header.encode() + bytes(4))
        assert 'cannot be read as a checkpoint of plain tensors' in refusal(lambda: read(path))


def test_other_containers_and_no_files(tmp_path):
    path = tmp_path / 'a.pth'
    with tarfile.open(path, 'w') as archive:
        for name in ('storages', 'tensors', 'pickle'):  # as of PyTorch before 0.1.10
            entry = tarfile.TarInfo(name)
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b'abc'))
    assert 'is of an unknown kind' in refusal(lambda: read(path))
    assert 'is a device, expected a regular file' in refusal(lambda: read(Path('/dev/zero')), OSError)
    os.mkfifo(tmp_path / 'pipe.pth')
    assert 'is a pipe, expected a regular file' in refusal(lambda: read(tmp_path / 'pipe.pth'), OSError)
