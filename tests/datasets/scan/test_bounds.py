"""What a file of annotations, or a picture, may ask for."""

import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from support.bounded import bounded
from support.scan import CocoFolder, write_picture

from vitdense.datasets.scan import rules
from vitdense.datasets.scan.pictures import Loader, look, missing_files
from vitdense.untrusted.pictures import LIMIT


@pytest.fixture
def coco(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path)


def findings(coco: CocoFolder, **settings) -> list:
    from vitdense.datasets.scan import scan_data

    coco.write()
    [report] = scan_data(coco.config(**settings), ('train',))
    return report.findings


def bomb(path: Path, side: int = 30_000) -> Path:
    """A PNG of 900 million grey pixels, in a kilobyte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    head = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(2**20), 9)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', rows) + chunk(b'IEND', b''))
    return path


def test_images_are_regular_files(coco):
    folder = coco.root / 'train'
    for name in ('1.jpg', '2.jpg', '3.jpg', '4.jpg'):
        (folder / name).unlink()
    os.mkfifo(folder / '1.jpg')
    (folder / '2.jpg').symlink_to('/dev/zero')
    (folder / '3.jpg').mkdir()
    (folder / '4.jpg').symlink_to('4.jpg')
    (folder / '5.jpg').rename(coco.root / '5.jpg')
    (folder / '5.jpg').symlink_to('../5.jpg')
    found = bounded(lambda: findings(coco), megabytes=2000)
    told = {Path(one.where).name: one.found for one in found if one.kind == rules.MISSING_IMAGE}
    assert told == {
        '1.jpg': 'is a pipe, expected a regular file (image 1)',
        '2.jpg': 'is a device, expected a regular file (image 2)',
        '3.jpg': 'is a folder (image 3)',
        '4.jpg': 'there is no such file (image 4)',
    }
    assert all(one.fatal for one in found)


def test_files_that_become_pipes_after_the_listing(tmp_path):
    os.mkfifo(tmp_path / 'a.jpg')
    picture = bounded(lambda: look(str(tmp_path / 'a.jpg'), Loader()))
    assert picture.error == 'is a pipe, expected a regular file'
    assert missing_files([str(tmp_path / 'a.jpg'), str(tmp_path / 'none/b.jpg')]) == {
        str(tmp_path / 'a.jpg'): 'is a pipe, expected a regular file',
        str(tmp_path / 'none/b.jpg'): '',
    }


def test_images_outside_of_the_data_are_told(coco, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    write_picture(other / 'a.jpg', 50)
    write_picture(coco.root / 'b.jpg', 51)
    images = coco.content['train']['images']
    images[0]['file_name'] = '../b.jpg'  # which is within data_root
    images[1]['file_name'] = str(coco.root / 'train/2.jpg')
    assert not findings(coco)
    images[2]['file_name'] = str(other / 'a.jpg')
    [found] = findings(coco)
    assert (found.kind, found.where, found.found, found.fatal) == (
        rules.ELSEWHERE,
        str(other / 'a.jpg'),
        '1 in all',
        False,
    )
    images[3]['file_name'] = f'../../{other.name}/a.jpg'
    write_picture(coco.root.parent / other.name / 'a.jpg', 52)
    assert {one.found for one in findings(coco) if one.kind == rules.ELSEWHERE} == {'2 in all'}


def test_pictures_of_a_billion_pixels(coco, monkeypatch):
    path = bomb(coco.root / 'train/1.jpg')
    for loader in (Loader(), Loader(backend='pillow'), Loader(flag='unchanged')):
        picture = bounded(lambda loader=loader: look(str(path), loader))
        assert 'pixels' in picture.error
    [found] = bounded(lambda: findings(coco), megabytes=2000)
    assert found.kind == rules.UNREADABLE_IMAGE
    assert found.found == f'has 30000 x 30000 pixels, expected at most 268435456; {LIMIT}=N allows N'
    monkeypatch.setenv(LIMIT, '2400')
    assert len([one for one in findings(coco) if one.kind == rules.TOO_LARGE]) == 6
    monkeypatch.setenv(LIMIT, '4800')
    assert [one.where.partition(' ')[0][-5:] for one in findings(coco)] == ['1.jpg']


def test_other_pictures_that_are_more_than_they_seem(tmp_path):
    frames = [Image.new('L', (64, 64), i % 256) for i in range(2000)]
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / 'a.tif', save_all=True, append_images=frames[1:200])
    for name in ('a.gif', 'a.tif'):
        picture = bounded(lambda name=name: look(str(tmp_path / name), Loader()), megabytes=200)
        assert picture.error or picture.loaded_wh == (64, 64)
    (tmp_path / 'a.png').write_bytes(bomb(tmp_path / 'b.png', 0).read_bytes())
    assert look(str(tmp_path / 'a.png'), Loader()).error


def test_half_a_million_objects(coco):
    content = coco.content['train']
    one = content['annotations'][0]
    content['annotations'] += [dict(one, id=number) for number in range(100, 20_098)]
    [found] = [one for one in findings(coco) if one.fatal]
    assert (found.kind, found.where, found.found) == (rules.TOO_MANY, 'image 1 (1.jpg)', '20001 objects')
    assert found.leave_out == 'image'
    content['annotations'].pop()
    assert not [one for one in findings(coco) if one.fatal]


def test_sizes_that_no_image_has(coco):
    coco.content['train']['images'][1].update(width=10**9, height=10**9)
    kinds = {one.kind for one in findings(coco) if '(2.jpg)' in one.where}
    assert kinds == {rules.TOO_LARGE}
