"""A check sum over the whole of a checkpoint: no byte of it changes in silence."""

import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from vitdense.checkpoint.read import read
from vitdense.checkpoint.seal import is_intact, seal

CONTENT = dict(meta=dict(epoch=3), state_dict=dict(a=torch.arange(2000.0), b=torch.ones(3, dtype=torch.bfloat16)))


@pytest.fixture(scope='module')
def sealed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('sealed') / 'x.pth'
    torch.save(CONTENT, path)
    before = path.read_bytes()
    assert is_intact(path) is None
    seal(path)
    assert path.read_bytes()[: len(before) - 2] == before[:-2]
    return path


def same(found) -> bool:
    tensors = found['state_dict']
    return found['meta'] == CONTENT['meta'] and all(
        torch.equal(tensors[k], v) for k, v in CONTENT['state_dict'].items()
    )


def test_a_sealed_file_is_what_it_was(sealed, tmp_path):
    assert is_intact(sealed)
    assert same(read(sealed))
    for mmap in (False, True):
        assert same(torch.load(sealed, weights_only=True, mmap=mmap))
    os.link(sealed, tmp_path / 'link.pth')
    shutil.copyfile(sealed, tmp_path / 'copy.pth')
    assert is_intact(tmp_path / 'link.pth')
    assert is_intact(tmp_path / 'copy.pth')
    size = sealed.stat().st_size
    seal(sealed)
    assert sealed.stat().st_size == size, 'once is enough'


def test_a_bit_anywhere_is_found_or_changes_nothing(sealed, tmp_path):
    content, damaged = sealed.read_bytes(), tmp_path / 'damaged.pth'
    places = [*range(60), *range(len(content) - 300, len(content)), *random.Random(0).sample(range(len(content)), 120)]
    missed = []
    for number, place in enumerate(places):
        changed = bytearray(content)
        changed[place] ^= 1 << number % 8
        damaged.write_bytes(changed)
        try:
            found = read(damaged)
        except ValueError:
            continue
        if not same(found) or is_intact(damaged) is not None:  # it is the mark of the seal that is damaged
            missed.append(place)
    assert missed == []


@pytest.mark.parametrize('length', [0, 1, 21, 22, 100, -90, -200])
def test_a_file_that_is_cut_short(length, sealed, tmp_path):
    (tmp_path / 'x.pth').write_bytes(sealed.read_bytes()[:length])
    with pytest.raises(ValueError, match=r'checkpoint .*x\.pth (is|cannot)'):
        read(tmp_path / 'x.pth')


@pytest.mark.parametrize('content', [b'', b'short', b'x' * 1000])
def test_other_files_are_left_alone(content, tmp_path):
    (tmp_path / 'x').write_bytes(content)
    seal(tmp_path / 'x')
    assert (tmp_path / 'x').read_bytes() == content
    assert is_intact(tmp_path / 'x') is None
