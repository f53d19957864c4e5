"""Files that the disk does not take: one line, whatever a library makes of it."""

import errno
import os
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from vitdense import files
from vitdense.engine.run_folder import RunFolder
from vitdense.files import replacing

Usage = namedtuple('Usage', 'total used free')


def of_the_system() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def of_safetensors() -> None:
    raise SafetensorError('Error while serializing: I/O error: No space left on device (os error 28)')


def in_a_library() -> None:
    try:
        of_the_system()
    finally:
        raise RuntimeError('the picture could not be encoded')


def of_pytorch() -> None:
    raise RuntimeError('[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0')


def write_half(path: Path, fail: Callable[[], None]) -> None:
    with replacing(path) as part:
        part.write_text('half')
        fail()


@pytest.mark.parametrize('write', [of_the_system, of_safetensors, in_a_library, of_pytorch])
def test_a_full_disk_is_one_line(write, tmp_path, monkeypatch):
    path = tmp_path / 'x.png'
    path.write_text('before')
    monkeypatch.setattr(files.shutil, 'disk_usage', lambda folder: Usage(1, 1, 1000))
    with pytest.raises(OSError, match=r'disk full: \S+/x\.png was not written, 0 MB are free$') as raised:
        write_half(path, write)
    assert raised.value.errno == errno.ENOSPC
    assert (os.listdir(tmp_path), path.read_text()) == (['x.png'], 'before')


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('unexpected pos 64 vs 0'),  # there is room on this disk
        ValueError('of a transform'),
        OSError(errno.ENOENT, 'no such file'),
        SafetensorError('(os error 2)'),
    ],
)
def test_other_errors_stay_as_they_are(error, tmp_path):
    def fail():
        raise error

    with pytest.raises(type(error)) as raised:
        write_half(tmp_path / 'x', fail)
    assert raised.value is error
    assert os.listdir(tmp_path) == []


def test_a_start_on_a_full_disk_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr('vitdense.engine.run_folder.json.dumps', lambda content: of_the_system())
    with pytest.raises(OSError, match=r'disk full: \S+/run\.json was not written'):
        RunFolder.fresh(str(tmp_path / 'runs/a'), config='a')
    assert os.listdir(tmp_path) == []
