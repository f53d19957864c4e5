"""Every format of weights is read, everything else is described, and no code in a file is run."""

import argparse
import contextlib
import json
import os
import pickle
import re
import shlex
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
from torch import nn

from vitdense.checkpoint.read import read

pytestmark = pytest.mark.filterwarnings('ignore:Detected pickle protocol', 'ignore:.torch.jit')

STATE = {
    'stem.weight': torch.linspace(-2, 2, 12).reshape(3, 4),
    'half': torch.tensor([1.5, -0.25], dtype=torch.float16),
    'brain': torch.tensor([3.0, -1e30], dtype=torch.bfloat16),
    'steps': torch.tensor(7),
    'empty': torch.zeros(0, 3),
}
ARRAYS = {key: value.numpy() for key, value in STATE.items() if value.dtype != torch.bfloat16}

# cPickle.dumps(d, protocol) of Python 2.7 with NumPy 1.16 for d = {'model': {'stem.conv1.weight': [[0.5, -1.25, 200],
# [3, 1e-8, 7]] of float32, 'n': 3 of int64, no dimensions}, '__author__': 'Caffe2', 'matching_heuristics': True}
PYTHON_2 = {
    0: (
        b"(dp1\nS'matching_heuristics'\np2\nI01\nsS'model'\np3\n(dp4\nS'stem.conv1.weight'\np5\ncnumpy.core.mul"
        b"tiarray\n_reconstruct\np6\n(cnumpy\nndarray\np7\n(I0\ntS'b'\ntRp8\n(I1\n(I2\nI3\ntcnumpy\ndtype\np9\n"
        b"(S'f4'\nI0\nI1\ntRp10\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x00?\\x00\\x00\\xa0\\xbf\\x00"
        b"\\x00HC\\x00\\x00@@w\\xcc+2\\x00\\x00\\xe0@'\ntbsS'n'\ng6\n(g7\n(I0\ntS'b'\ntRp11\n(I1\n(tg9\n(S'i8'"
        b"\nI0\nI1\ntRp12\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x03\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\ntbss"
        b"S'__author__'\np13\nS'Caffe2'\np14\ns."
    ),
    2: (
        b'\x80\x02}q\x01(U\x13matching_heuristicsq\x02\x88U\x05modelq\x03}q\x04(U\x11stem.conv1.weightq\x05cnum'
        b'py.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85U\x01b\x87Rq\x08(K\x01K\x02K'
        b'\x03\x86cnumpy\ndtype\nq\tU\x02f4K\x00K\x01\x87Rq\n(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK'
        b'\x00tb\x89U\x18\x00\x00\x00?\x00\x00\xa0\xbf\x00\x00HC\x00\x00@@w\xcc+2\x00\x00\xe0@tbU\x01nh\x06h'
        b'\x07K\x00\x85U\x01b\x87Rq\x0b(K\x01)h\tU\x02i8K\x00K\x01\x87Rq\x0c(K\x03U\x01<NNNJ\xff\xff\xff\xffJ'
        b'\xff\xff\xff\xffK\x00tb\x89U\x08\x03\x00\x00\x00\x00\x00\x00\x00tbuU\n__author__q\rU\x06Caffe2q\x0eu.'
    ),
}


def save(path: Path, state=STATE, form: str = 'zip') -> Path:
    if form == 'safetensors':
        save_file(state, path)
    elif form == 'npz':
        with path.open('wb') as file:
            np.savez(file, **ARRAYS)
    elif form == 'pickle':
        path.write_bytes(pickle.dumps({'model': ARRAYS, '__author__': 'me', 'matching_heuristics': True}))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == 'zip')
    return path


def assert_same(found, expected=STATE) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert found[key].shape == value.shape
        assert torch.equal(found[key], value)


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=r'^checkpoint ') as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f'checkpoint {path} ')
    return message.removeprefix(f'checkpoint {path} ')


# Formats


@pytest.mark.parametrize('form', ['zip', 'legacy', 'safetensors'])
@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors', 'a.pkl', 'a'])
def test_format_is_told_by_the_content(tmp_path, form, name):
    path = save(tmp_path / name, form=form)
    found = read(path)
    assert_same({key: found[key] for key in STATE})
    path.write_bytes(bytes(path.stat().st_size))
    assert_same({key: found[key] for key in STATE})


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_what_torch_saves_beside_tensors(tmp_path, form):
    weights = torch.arange(3.0)
    content = {
        'model': OrderedDict(wide=weights.expand(4, 3), same=weights, part=weights[1:]),
        'args': argparse.Namespace(lr=1e-4, device='cuda'),
        'epoch': 3,
        'meta': {'best': np.float64(0.25), 'count': np.int32(7)},
        'message_hub': {'loss': HistoryBuffer([2.0, 1.0], [1, 1])},
    }
    found = read(save(tmp_path / 'a.pth', content, form))
    assert found['args'].lr == 1e-4
    assert found['meta'] == content['meta']
    assert found['message_hub']['loss'].data[0].tolist() == [2.0, 1.0]
    assert found['epoch'] == 3
    assert_same(found['model'], content['model'])
    assert found['model']['wide'].stride() == (0, 1)


def test_checksums_may_be_left_out(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = save(tmp_path / 'a.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read(path))


def test_arrays_of_jax(tmp_path):
    path = tmp_path / 'a.bin'
    arrays = dict(ARRAYS, bf16=STATE['brain'].view(torch.int16).numpy().view('V2'), swapped=np.array([1, 2], '>i4'),
                  columns=np.asfortranarray(ARRAYS['stem.weight']), names=np.array(['cat', 'dog']))  # fmt: skip
    with path.open('wb') as file:
        np.savez_compressed(file, **arrays)
    found = read(path)
    assert_same({key: found[key] for key in ARRAYS}, {key: STATE[key] for key in ARRAYS})
    assert torch.equal(found['bf16'], STATE['brain'])
    assert found['swapped'].tolist() == [1, 2]
    assert torch.equal(found['columns'], STATE['stem.weight'])
    assert found['names'].tolist() == ['cat', 'dog']


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays(tmp_path, protocol):
    path = tmp_path / 'a.pkl'
    arrays = OrderedDict(ARRAYS, swapped=np.array([1, 2], '>i4'), columns=np.asfortranarray(ARRAYS['stem.weight']),
                         view=ARRAYS['stem.weight'][::2, 1:], flags=np.array([True, False]))  # fmt: skip
    content = {'model': arrays, '__author__': 'me', 'scale': np.float32(0.5), 'sizes': [np.arange(2), (np.arange(3),)]}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read(path)
    assert found['__author__'] == 'me'
    assert found['scale'] == 0.5
    assert found['sizes'][1][0].tolist() == [0, 1, 2]
    assert_same(found['model'], {key: torch.tensor(np.ascontiguousarray(value).astype(value.dtype.newbyteorder('=')))
                                 .reshape(value.shape) for key, value in arrays.items()})  # fmt: skip
    found['model']['columns'].add_(1)


@pytest.mark.parametrize('protocol', PYTHON_2)
def test_pickle_of_python_2(tmp_path, protocol):
    path = tmp_path / 'R-50.pkl'
    path.write_bytes(PYTHON_2[protocol])
    found = read(path)
    assert found['__author__'] == 'Caffe2'
    assert found['matching_heuristics'] is True
    weight = torch.tensor([[0.5, -1.25, 200.0], [3.0, 1e-8, 7.0]])
    assert_same({key: found['model'][key] for key in ('stem.conv1.weight', 'n')},
                {'stem.conv1.weight': weight, 'n': torch.tensor(3)})  # fmt: skip


# Code


class Harmful:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class Recipe:
    """A class of somebody's training script."""

    lr = 0.1


@pytest.mark.parametrize('form', ['zip', 'legacy', 'pickle'])
def test_code_is_not_run(tmp_path, form):
    path, content = tmp_path / 'a.pth', {'model': STATE, 'meta': Harmful(tmp_path / 'harm')}
    if form == 'pickle':
        path.write_bytes(pickle.dumps(content['meta']))
    else:
        save(path, content, form)
    message = refusal(path)
    assert not (tmp_path / 'harm').exists()
    assert f'it needs {os.mkdir.__module__}.mkdir, and to load them could run any code' in message
    (pickle.load(path.open('rb')) if form == 'pickle' else torch.load(path, weights_only=False))
    assert (tmp_path / 'harm').exists()


@pytest.mark.parametrize('name', ['builtins.eval', 'numpy.core.multiarray.fromfile', 'numpy.load', '_codecs.decode',
                                  'torch.storage._load_from_bytes', 'collections.OrderedDict.fromkeys'])  # fmt: skip
@pytest.mark.parametrize('protocol', [2, 4])
def test_pickle_may_name_only_what_arrays_need(tmp_path, name, protocol):
    module, _, function = (
        name.rpartition('.') if 'fromkeys' not in name else ('collections', '', 'OrderedDict.fromkeys')
    )
    call = {
        2: b'\x80\x02c' + f'{module}\n{function}\n'.encode() + b'X\x01\x00\x00\x001\x85R.',
        4: b'\x80\x04' + b''.join(b'\x8c' + bytes([len(s)]) + s.encode() for s in (module, function, '1'))[: -3]
        + b'\x93\x8c\x011\x85R.',
    }  # fmt: skip
    path = tmp_path / 'a.pkl'
    path.write_bytes(call[protocol])
    assert f'it needs {name}, and' in refusal(path)


def test_pickle_cannot_change_what_is_called(tmp_path):
    path = tmp_path / 'a.pkl'
    for state in (b'}X\x01\x00\x00\x00aK\x01s', b'N}X\x01\x00\x00\x00aK\x01s\x86'):  # a dict, and one for slots
        for name in (b'numpy\ndtype\n', b'collections\nOrderedDict\n', b'_codecs\nencode\n'):
            path.write_bytes(b'\x80\x02c' + name + state + b'b.')
            assert 'AttributeError' in refusal(path)


def test_arrays_of_objects_are_refused(tmp_path):
    path = tmp_path / 'a.pkl'
    path.write_bytes(pickle.dumps({'a': np.array([None, 'text'])}))
    assert "an array of type '|O8', expected numbers" in refusal(path)
    with (tmp_path / 'a.npz').open('wb') as file:
        np.savez(file, a=np.array([Harmful(tmp_path / 'harm')]))
    assert 'allow_pickle=False' in refusal(tmp_path / 'a.npz')
    assert not (tmp_path / 'harm').exists()


@pytest.mark.parametrize('form', ['zip', 'legacy', 'pickle', 'protocol', 'torchscript', 'module'])
def test_command_keeps_the_weights_of_a_trusted_file(tmp_path, form):
    path, recipe = tmp_path / "it's mine.pth", f'{Recipe.__module__}.Recipe'
    layer = nn.Linear(2, 3)
    if form == 'pickle':
        arrays = {key: value.numpy() for key, value in layer.state_dict().items()}
        path.write_bytes(pickle.dumps({'model': arrays, 'meta': Recipe()}))
    elif form == 'protocol':
        torch.save({'state_dict': layer.state_dict()}, path, pickle_protocol=4)
    elif form == 'torchscript':
        torch.jit.trace(layer, torch.zeros(1, 2)).save(path)
    elif form == 'module':
        torch.save({'epoch': 1, 'model': layer}, path)
    else:
        save(path, {'state_dict': dict(layer.state_dict(), note='text'), 'a': Recipe(), 'b': nn.ReLU}, form)
    message = refusal(path)
    needs = {'zip': f'{recipe}, torch.nn.modules.activation.ReLU', 'torchscript': 'a program of TorchScript',
             'protocol': 'a protocol of pickle that PyTorch does not read safely',
             'module': 'torch.nn.modules.linear.Linear'}  # fmt: skip
    names = message.partition('it needs ')[2].partition(', and to load')[0]
    assert set(needs.get(form, recipe).split(', ')) <= set(names.split(', '))
    python, flag, program = shlex.split(message.splitlines()[-1])
    assert (python, flag) == ('python', '-c')
    exec(program, {})
    assert_same(read(tmp_path / "it's mine_weights.pth")['model'], layer.state_dict())


# Files that hold no weights


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r'is empty (0 bytes), expected weights of PyTorch'),
        (b'<!DOCTYPE html>\n<html>Not found', "a text file that begins with '<!DOCTYPE html>', expected weights"),
        (b'\n\n', "a text file that begins with '', expected"),
        (b'Not Found', "where a download went wrong, delete it and fetch it again"),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n', 'is a pointer of Git LFS'),
        (b'{"metadata": {"total_size": 9}, "weight_map": {"a": "b"}}', 'expected one whole file with all of them'),
        (b'\x89PNG\r\n\x1a\n' + bytes(64), 'is a PNG picture: it begins with the bytes 89 50 4e 47 0d 0a 1a 0a'),
        (b'\x1f\x8b\x08' + bytes(64), 'is compressed by gzip: it begins with'),
        (b'\x00\x01\x02\x03' * 32, 'is of an unknown kind: it begins with the bytes 00 01 02 03 00 01 02 03, expected'),
        (b'\x08\x00\x00', 'is truncated: 3 bytes are there'),
        (pickle.dumps([1, 2]), 'expected a dict of tensors, found list'),
        (pickle.dumps({'epoch': 3}), "expected a dict of tensors, found one of ['epoch'] without any"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_weights_is_described(tmp_path, content, message):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    assert message in refusal(path)


def test_contents_of_torch_that_are_no_dict_of_tensors(tmp_path):
    assert 'found Tensor' in refusal(save(tmp_path / 'a.pth', torch.zeros(2)))
    assert 'found list' in refusal(save(tmp_path / 'a.pth', [torch.zeros(2)], 'legacy'))
    assert "one of ['meta', 'state_dict'] without" in refusal(save(tmp_path / 'a.pth', {'meta': 1, 'state_dict': {}}))


def test_other_zip_archives_and_lists_of_parts(tmp_path):
    path = tmp_path / 'weights.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('weights.pth', 'x')
    assert 'is a zip archive of weights.pth, expected' in refusal(path)
    parts = tmp_path / 'model.safetensors.index.json'
    parts.write_text(json.dumps({'metadata': {'note': 'x' * 600}, 'weight_map': {}}))
    assert 'is the list of the parts of sharded weights' in refusal(parts)


def test_files_that_cannot_be_opened_keep_their_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'a\.pth'):
        read(tmp_path / 'a.pth')
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


# Damage

FORMS = ['zip', 'legacy', 'safetensors', 'npz', 'pickle']
many = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    return {form: save(folder / form, form=form).read_bytes() for form in FORMS}


def test_truncation_says_what_is_there(tmp_path, whole):
    path = tmp_path / 'a.pth'
    for form in FORMS:
        half = len(whole[form]) // 2
        path.write_bytes(whole[form][:half])
        assert re.search(rf'truncated.*{half} bytes are there', refusal(path))
    path.write_bytes(whole['safetensors'][:-1])
    assert f'is truncated: {len(whole["safetensors"]) - 1} bytes are there, {len(whole["safetensors"])} are' in refusal(
        path
    )
    path.write_bytes(whole['legacy'][:-1])
    assert f'truncated or damaged ({len(whole["legacy"]) - 1} bytes are there; ' in refusal(path)


@pytest.mark.parametrize('form', FORMS)
@many
@given(data=st.data())
def test_no_part_of_a_file_is_taken_for_the_whole(tmp_path, whole, form, data):
    path = tmp_path / 'a.pth'
    path.write_bytes(whole[form][: data.draw(st.integers(0, len(whole[form]) - 1))])
    refusal(path)


@pytest.mark.parametrize('form', FORMS)
@many
@given(data=st.data())
def test_flipped_bytes_are_an_error_or_other_values(tmp_path, whole, form, data):
    path, content = tmp_path / 'a.pth', bytearray(whole[form])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = None
    with contextlib.suppress(ValueError):
        found = read(path)
    if found is None:
        refusal(path)
    elif form == 'zip':  # has checksums
        assert_same(found)
    else:
        assert isinstance(found, dict)


def test_damage_of_a_value_is_found_where_there_are_checksums(tmp_path, whole):
    path, content = tmp_path / 'a.pth', bytearray(whole['zip'])
    content[content.index(STATE['stem.weight'].numpy().tobytes())] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)['stem.weight'][0, 0] != STATE['stem.weight'][0, 0]
    assert "is damaged: 'zip/data/0' in it is not what" in refusal(path)
    content = bytearray(whole['zip'])
    content[content.rindex(b'zip/data/1') - 8] |= 0x10  # its table of contents says that this is a folder
    path.write_bytes(content)
    assert "is damaged: 'zip/data/1' in it is not what" in refusal(path)


def test_sizes_in_a_pickle_take_no_memory(tmp_path):
    path = tmp_path / 'a.pkl'
    content = pickle.dumps(ARRAYS, protocol=2)
    assert content.startswith(b'\x80\x02}q\x00')
    tracemalloc.start()
    try:
        path.write_bytes(content.replace(b'}q\x00', b'}r\x00\x00\x00\x01', 1))  # the number of the dict
        assert_same(read(path), {key: STATE[key] for key in ARRAYS})
        path.write_bytes(b'\x80\x05\x96' + (1 << 28).to_bytes(8, 'little') + b'abcdefgh.')
        assert f'it ends after 9 of {1 << 28} bytes of a value' in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()
