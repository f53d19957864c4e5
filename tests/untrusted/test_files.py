"""Bounds of values, text and files, without any package around them."""

import os
import pickle
import zipfile

import pytest
from support.bounded import refusal

from vitdense.untrusted.configs import check_plain
from vitdense.untrusted.files import check_regular, check_zip, outside, read_regular
from vitdense.untrusted.pickles import check_pickled
from vitdense.untrusted.values import UnboundedError, check_values
from vitdense.untrusted.yaml_text import read_yaml

PROGRAMS = [
    *('import os', 'a = open("x")', 'a = dict(open("x"))', 'a = b.c', 'a = [x for x in y]', 'a()', 'a = f"{b}"'),
    *('def a(): pass', 'a = lambda: 0', 'a = 1 if b else 2', 'a += 1', 'for a in b: pass', '(' * 300),
]


def test_values_are_counted_as_a_walk_meets_them():
    one = ['a', 'b', 'c']  # four with itself
    check_values([one, one], most=9)
    with pytest.raises(UnboundedError, match='more than 8 values'):
        check_values([one, one], most=8)
    with pytest.raises(UnboundedError, match='more than 8 values'):
        check_values({'a': one, 'b': (1, 2, {3})}, most=8)
    check_values({'a': one, 'b': (1, 2, {3})}, most=12)
    check_values('text', most=1)


def test_values_that_are_shared_are_as_deep_as_their_deepest_place():
    inner: list = []
    for _ in range(400):
        inner = [inner]
    check_values([inner, inner])
    outer = inner
    for _ in range(200):
        outer = [outer]
    with pytest.raises(UnboundedError, match='500 deep'):
        check_values([inner, outer])


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_plain_values_are_fine(protocol):
    value = {
        'a': [1, 2.5, None, True, b'x', 'y' * 300],
        'b': ({1, 2}, frozenset([3]), (4, 5, 6, 7)),
        10**30: [],
        (1, 2): {},
    }
    check_pickled(pickle.dumps(value, protocol))
    check_pickled(pickle.dumps([value, value, bytearray(b'abc')], protocol))
    content = pickle.dumps(value, protocol)
    for end in range(0, len(content), 7):
        with pytest.raises(Exception):  # noqa: B017, PT011  whatever Python says of half a pickle
            check_pickled(content[:end])


def test_yaml_says_plain_values():
    text = 'a: [1, 2.5, null, yes]\nb: &b {c: d}\ne: {<<: *b, f: !!python/tuple [1, [2]]}\ng: 2020-01-02\n'
    found = read_yaml(text)
    assert found.pop('g').isoformat() == '2020-01-02'
    assert found == {'a': [1, 2.5, None, True], 'b': {'c': 'd'}, 'e': {'c': 'd', 'f': (1, [2])}}
    assert read_yaml('') is None
    assert read_yaml('{"a": [1, 2]}') == {'a': [1, 2]}
    for bad in ('[1,', '? [1]\n: 2', '!foo 3', 'a: b: c', '!!python/object/new:os.system [x]', '[' * 10**6):
        with pytest.raises(ValueError, match=r'\w'):
            read_yaml(bad)


def test_devices_pipes_and_sockets_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to('pipe')
    (tmp_path / 'file').write_text('abc')
    (tmp_path / 'to file').symlink_to('file')
    for path, what in ((tmp_path / 'pipe', 'a pipe'), (tmp_path / 'link', 'a pipe'), ('/dev/zero', 'a device')):
        assert f'{path} is {what}, expected a regular file' == refusal(lambda path=path: read_regular(path), OSError)
    assert read_regular(tmp_path / 'to file') == read_regular(tmp_path / 'file', 3) == b'abc'
    with pytest.raises(OSError, match='has 3 bytes, expected at most 2'):
        read_regular(tmp_path / 'file', 2)
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / 'none')


def test_zip_archives_by_what_they_unpack_to(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a', bytes(2**20))
    with zipfile.ZipFile(tmp_path / 'a.zip') as archive:
        check_zip(archive, 1200)
        archive.filelist *= 300
        with pytest.raises(
            ValueError, match='unpacks to 314572800 bytes and has 1200 itself, expected at most 268435456'
        ):
            check_zip(archive, 1200)
        check_zip(archive, 7_000_000)


def test_what_leads_out_of_folders():
    roots = ['/data/set', 'here']
    for path in ('/data/set/a.jpg', '/data/set/../set/a.jpg', 'here/a.jpg', os.path.abspath('here/b/a.jpg')):
        assert not outside(path, roots)
    for path in ('/data/settle/a.jpg', '/data/set/../a.jpg', 'here/../a.jpg', '/etc/passwd', 'a.jpg'):
        assert outside(path, roots)


def test_a_config_of_values_is_plain():
    check_plain("a = dict(b=[1, -2.5, (None, True)], c={'d': {1}}, **{'e-f': 3})\ng = 'text'\n", 'it')
    for text in PROGRAMS:
        with pytest.raises(ValueError, match=r'^it '):
            check_plain(text, 'it')
