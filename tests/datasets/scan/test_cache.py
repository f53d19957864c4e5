"""What an earlier scan has found is known until something of it changes."""

import os
import shutil

import pytest

pytest.importorskip('mmdet')

from support.scan import CocoFolder, kinds, write_picture

from vitdense.datasets.scan import cache
from vitdense.datasets.scan.pictures import look


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def coco(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / 'data')


@pytest.fixture
def looks(monkeypatch) -> list[str]:
    """Paths of the files that were opened."""
    opened = []

    def counted(path, loader):
        opened.append(path)
        return look(path, loader)

    for module in ('coco', 'seg'):
        monkeypatch.setattr(f'vitdense.datasets.scan.{module}.look', counted)
    return opened


def test_second_scan_opens_nothing_and_says_the_same(coco, looks):
    path = coco.root / 'train/2.jpg'
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    coco.content['train']['annotations'][0]['bbox'] = [0, 0, -3, 3]
    coco.write()
    first = coco.scan()
    assert len(looks) == 6
    second = coco.scan()
    assert len(looks) == 6
    assert (first.cached, second.cached) == (False, True)
    second.cached = False
    assert second == first
    assert len(first.fatal) == 2


def test_any_change_is_noticed(coco, looks, monkeypatch):
    def opens(**changes) -> bool:
        looks.clear()
        coco.scan(**changes)
        return bool(looks)

    assert opens()
    assert not opens()
    coco.content['train']['annotations'][0]['bbox'][0] += 1
    coco.write()
    assert opens()
    assert opens(metainfo=dict(classes=('square', 'circle', 'triangle')))
    assert opens(check='sample')
    assert not opens(check='sample')
    write_picture(coco.root / 'train/3.jpg', 33)
    assert opens()
    os.utime(coco.root / 'train/3.jpg', ns=(1, 1))
    assert opens()
    assert not opens()
    (coco.root / 'train/5.jpg').unlink()
    assert opens()
    assert 'missing image' in kinds(coco.scan())
    monkeypatch.setattr(cache, 'VERSION', cache.VERSION + 1)
    assert opens()


def test_missing_files_that_appear_are_noticed(coco):
    shutil.move(coco.root / 'train', coco.root / 'away')
    assert kinds(coco.scan())['missing image'] == 6
    shutil.move(coco.root / 'away', coco.root / 'train')
    assert coco.scan().findings == []


@pytest.mark.parametrize('content', [b'', b'{"report": 3}', b'\xff\x00', b'{"report": {}, "stamps": {}}', b'[]'])
def test_unreadable_cache_is_ignored(coco, cache_dir, content):
    first = coco.scan()
    (entry,) = (cache_dir / 'scan').iterdir()
    assert entry.suffix == '.json'
    entry.write_bytes(content)
    assert coco.scan() == first


def test_cache_that_cannot_be_written_is_done_without(coco, cache_dir):
    cache_dir.write_text('a file')
    assert coco.scan() == coco.scan()
