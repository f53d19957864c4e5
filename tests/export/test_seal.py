"""A check sum over the whole of a file of ONNX or safetensors: no bit of it changes in silence."""

import random
import re
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import vitdense
from vitdense.export import seal

WEIGHT = np.arange(500, dtype=np.float32)


def write_onnx(path: Path, text: str) -> None:
    weight = onnx_ir.Value(name='weight', const_value=onnx_ir.tensor(WEIGHT))
    image = onnx_ir.val('image', onnx_ir.DataType.FLOAT, [500])
    add = onnx_ir.node('Add', [image, weight])
    graph = onnx_ir.Graph([image], add.outputs, nodes=[add], initializers=[weight], opset_imports={'': 20}, name='g')
    onnx_ir.save(onnx_ir.Model(graph, ir_version=10, metadata_props={'a': 'b', seal.KEY: text, 'z': 'y'}), path)


def write_safetensors(path: Path, text: str) -> None:
    save_file(dict(weight=torch.from_numpy(WEIGHT)), path, {'a': 'b', seal.KEY: text, 'z': 'y'})


@pytest.fixture(params=[write_onnx, write_safetensors])
def sealed(request, tmp_path) -> Path:
    path = tmp_path / 'x'
    request.param(path, seal.OPEN)
    before = path.read_bytes()
    seal.close(path)
    after = path.read_bytes()
    assert len(after) == len(before)
    assert sum(a != b for a, b in zip(after, before, strict=True)) <= seal.DIGITS
    return path


def is_taken(path: Path) -> bool:
    try:
        seal.check(path)
    except ValueError:
        return False
    return True


def test_a_bit_anywhere_is_found(sealed):
    seal.check(sealed)
    content = sealed.read_bytes()
    start = content.index(seal.MARK)
    mark = range(start, start + len(seal.MARK))  # without it, a file has no seal
    places = [
        *range(100),
        *range(start - 20, start + len(seal.MARK) + seal.DIGITS),
        *random.Random(0).sample(range(len(content)), 150),
    ]
    missed = []
    for number, place in enumerate(places):
        changed = bytearray(content)
        changed[place] ^= 1 << number % 8
        sealed.write_bytes(changed)
        if place not in mark and is_taken(sealed):
            missed.append(place)
    assert missed == []
    sealed.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r'/x is damaged: its content is not that of its check sum; copy it'):
        seal.check(sealed)


def test_what_has_no_seal_is_left_alone(tmp_path):
    for content in (b'', b'x', b'x' * 5000, seal.MARK[:-1]):
        (tmp_path / 'x').write_bytes(content)
        seal.check(tmp_path / 'x')
    (tmp_path / 'x').write_bytes(seal.MARK)
    with pytest.raises(ValueError, match='is damaged'):
        seal.check(tmp_path / 'x')


def test_readers_of_the_format_read_it(sealed):
    if sealed.read_bytes()[8:9] == b'{':
        assert torch.equal(load_file(sealed)['weight'], torch.from_numpy(WEIGHT))
        with safe_open(sealed, 'pt') as file:
            known = file.metadata()
    else:
        model = onnx_ir.load(sealed)
        np.testing.assert_array_equal(model.graph.initializers['weight'].const_value.numpy(), WEIGHT)
        known = model.metadata_props
    assert re.fullmatch(r'vitdense sha256 [0-9a-f]{64}', known[seal.KEY])
    assert (known['a'], known['z']) == ('b', 'y')


def test_a_model_is_not_loaded_from_a_damaged_file(tmp_path):
    for write, suffix in ((write_onnx, '.onnx'), (write_safetensors, '.safetensors')):
        path = tmp_path / f'm{suffix}'
        write(path, seal.OPEN)
        seal.close(path)
        content = bytearray(path.read_bytes())
        content[content.index(WEIGHT.tobytes()) + 1000] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf'm\{suffix} is damaged: its content'):
            vitdense.load(path, device='cpu')
