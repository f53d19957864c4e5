"""Lists of names of semantic maps, and maps that lie among the images."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')

from support.scan import kinds, only, picture
from support.seg import SegFolder, names

from vitdense.datasets.scan import drop_findings, raise_findings, scan_data
from vitdense.findings import RunError

LINE = 'line of a list of names'
AMONG = 'semantic map that is read as an image'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def seg(tmp_path) -> SegFolder:
    return SegFolder(tmp_path / 'data')


@pytest.mark.parametrize(
    ('line', 'says'),
    [
        ('', 'the line is blank'),
        ('1.jpg', "'1.jpg' has a suffix; the name is '1'"),
        ('1.png', "'1.png' has a suffix; the name is '1'"),
        ('images/1.jpg', "'images/1.jpg' has a suffix and a folder; the name is '1'"),
        ('1.jpg 1.png', "'1.jpg 1.png' has more than a name and a suffix; the name is '1'"),
        ('1.jpg\t', "'1.jpg\\t' has blanks around the name and a suffix; the name is '1'"),
    ],
)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_line_that_is_no_name(seg, line, says, split):
    """The cause is told, and not what follows from it, such as "images/.jpg"."""
    (seg.root / 'names.txt').write_text(f'0\n{line}\n3\n')
    cfg = seg.config(split=split, ann_file='names.txt')
    reports = scan_data(cfg, (split,), 'full')
    finding = only(reports[0])
    assert (finding.kind, finding.where) == (LINE, f'{seg.root}/names.txt, line 2')
    assert says in finding.found
    assert reports[0].images == 2
    drop_findings(cfg, reports, seg.root.parent / 'clean')
    assert names(cfg[f'{split}_dataloader'].dataset) == ['0', '3']


def test_blanks_that_mmseg_takes_away_are_no_fault(seg):
    (seg.root / 'names.txt').write_text('0 \n\t1\n3\r\n')
    assert seg.scan(ann_file='names.txt').findings == []


def test_all_lines_with_a_suffix(seg):
    (seg.root / 'names.txt').write_text('\ufeff0.jpg\n1.jpg\n')
    cfg = seg.config(ann_file='names.txt')
    reports = scan_data(cfg, ('train',))
    assert kinds(reports[0]) == {LINE: 2}
    assert "has a byte order mark and a suffix; the name is '0'" in reports[0].findings[0].found
    with pytest.raises(RunError, match='would leave out all 2'):
        drop_findings(cfg, reports, seg.root.parent / 'clean')


def one_folder(seg: SegFolder, image: str, semantic: str) -> dict:
    """Images and maps in one folder, under these names; what the config says."""
    for i in range(3):
        Image.fromarray(picture(i)).save(seg.root / f'all_{i}{image}') if image else None
    folder = seg.root / 'one'
    folder.mkdir()
    for i in range(3):
        (seg.root / f'all_{i}{image}').rename(folder / f'{i}{image}')
        Image.fromarray(np.tile(np.array([0, 1, 2, 255], np.uint8), (60, 20))).save(folder / f'{i}{semantic}')
    return dict(data_prefix=dict(img_path='one', seg_map_path='one'), img_suffix=image, seg_map_suffix=semantic)


def test_images_that_are_their_own_maps(seg):
    for i in range(5):
        Image.fromarray(picture(i)).save(seg.root / f'images/{i}.png')
        seg.image(i).unlink()
    finding = only(seg.scan(data_prefix=dict(img_path='images', seg_map_path='images'), img_suffix='.png'))
    assert (finding.kind, finding.where, finding.leave_out) == (AMONG, f'{seg.root}/images', '')
    assert f'5 of 5 images are their own maps, the first is {seg.root}/images/0.png' in finding.found


def test_the_folder_of_the_maps_given_twice(seg):
    finding = only(seg.scan(data_prefix=dict(img_path='maps', seg_map_path='maps'), img_suffix='.png'))
    assert (finding.kind, finding.where) == (AMONG, f'{seg.root}/maps')


def test_one_folder_with_suffixes_that_tell_images_from_maps(seg):
    assert seg.scan(**one_folder(seg, '.jpg', '.png')).findings == []


def test_maps_whose_suffix_ends_like_that_of_the_images(seg):
    """0_mask.png is read as an image, and its map would be 0_mask_mask.png. --lenient lists the images."""
    changes = one_folder(seg, '.png', '_mask.png')
    cfg = seg.config(**changes)
    reports = scan_data(cfg, ('train',), 'full')
    assert kinds(reports[0]) == {AMONG: 3}
    assert {Path(finding.where).name for finding in reports[0].findings} == {f'{i}_mask.png' for i in range(3)}
    assert reports[0].images == 3
    with pytest.raises(RunError, match=r"img_suffix '\.png' and seg_map_suffix '_mask\.png'"):
        raise_findings(reports)
    drop_findings(cfg, reports, seg.root.parent / 'clean')
    assert names(cfg.train_dataloader.dataset) == ['0', '1', '2']


def test_a_folder_of_maps_in_that_of_the_images(seg):
    """mmseg looks into all folders below."""
    shutil.move(seg.root / 'maps', seg.root / 'images/maps')
    for i in range(5):
        Image.fromarray(picture(i)).save(seg.root / f'images/{i}.png')
        seg.image(i).unlink()
    (seg.root / 'images/maps/9.png').write_bytes((seg.root / 'images/maps/0.png').read_bytes())
    cfg = seg.config(data_prefix=dict(img_path='images', seg_map_path='images/maps'), img_suffix='.png')
    reports = scan_data(cfg, ('train',), 'full')
    assert kinds(reports[0]) == {AMONG: 6}
    drop_findings(cfg, reports, seg.root.parent / 'clean')
    assert names(cfg.train_dataloader.dataset) == ['0', '1', '2', '3', '4']


def test_names_that_are_no_utf_8(seg):
    """Images and maps are found by them; only a list cannot name them."""
    for path in (seg.image(1), seg.map(1)):
        os.rename(path, os.fsencode(path.parent) + b'/caf\xe9' + path.suffix.encode())
    cfg = seg.config()
    reports = scan_data(cfg, ('train',), 'full')
    assert (reports[0].images, reports[0].findings) == (5, [])
    assert 'caf\udce9' in names(cfg.train_dataloader.dataset)
    seg.image(2).write_bytes(b'')
    reports = scan_data(cfg, ('train',), 'full')
    with pytest.raises(ValueError, match='--lenient: caf\udce9 has bytes that are no UTF-8'):
        drop_findings(cfg, reports, seg.root.parent / 'clean')
