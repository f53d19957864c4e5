"""Image files that are missing, damaged, turned, of another size or there twice."""

import re
import shutil
import struct
import zlib

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmdet')

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from support.scan import LOAD, CocoFolder, kinds, only, picture, write_picture

from vitdense.datasets.scan import drop_findings, pictures, raise_findings, scan, scan_data
from vitdense.datasets.scan.pictures import Loader, find_loader, look, spread
from vitdense.datasets.scan.resizing import resized
from vitdense.findings import RunError
from vitdense.registry import DATASETS, TRANSFORMS


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def coco(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / 'data')


def image_ids(node) -> list[int]:
    dataset = DATASETS.build(dict(node, pipeline=[]))
    return [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]


def save_turned(path, seed: int, orientation: int, wh: tuple[int, int]) -> None:
    image = Image.fromarray(picture(seed, wh))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def truncate(path, share: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_bad_files_are_named_and_dropped(coco):
    train = coco.root / 'train'
    (train / '1.jpg').unlink()
    truncate(train / '2.jpg')
    (train / '3.jpg').write_text('no image')
    (train / '4.jpg').write_bytes(b'')
    write_picture(train / '5.jpg', 5, wh=(60, 80))
    before = coco.snapshot()
    cfg = coco.config()
    reports = scan_data(cfg, check='full')
    found = {(f.kind, f.where) for f in reports[0].fatal}
    assert found == {
        ('missing image', f'{train}/1.jpg'),
        ('unreadable image', f'{train}/2.jpg (image 2)'),
        ('unreadable image', f'{train}/3.jpg (image 3)'),
        ('unreadable image', f'{train}/4.jpg (image 4)'),
        ('wrong image size', f'{train}/5.jpg (image 5)'),
    }
    messages = {f.where: f.found for f in reports[0].fatal}
    assert 'truncated' in messages[f'{train}/2.jpg (image 2)']
    assert 'empty' in messages[f'{train}/4.jpg (image 4)']
    assert messages[f'{train}/5.jpg (image 5)'] == 'it is 60 x 80, the json says 80 x 60'
    assert reports[0].opened == 5
    assert reports[0].images == 1
    with pytest.raises(RunError, match='unreadable image: 3'):
        raise_findings(reports)
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    assert image_ids(cfg.train_dataloader.dataset) == [6]
    assert coco.snapshot() == before
    again = scan_data(cfg, check='full')[0]
    assert (again.images, again.findings) == (1, [])


def test_bare_stack_takes_wrong_sizes_and_stumbles_over_truncated_files_when_they_are_due(coco):
    truncate(coco.root / 'train/2.jpg')
    coco.content['train']['images'][3].update(width=160, height=120)
    coco.write()
    dataset = DATASETS.build(dict(coco.config().train_dataloader.dataset, type='mmdet.CocoDataset', pipeline=LOAD[:1]))
    assert isinstance(dataset, MMDetCocoDataset)
    assert dataset[3]['img'].shape == (60, 80, 3)
    assert dataset[3]['width'] == 160
    with pytest.raises(AssertionError, match='failed to load'):
        dataset[1]
    assert kinds(coco.scan()) == {'unreadable image': 1, 'wrong image size': 1}


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp', 'tif'])
@pytest.mark.parametrize('share', [0.0, 0.1, 0.5, 0.9, 1.0])
def test_truncation_of_all_formats(tmp_path, suffix, share):
    """At any place; whole files are fine and have their size."""
    path = tmp_path / f'a.{suffix}'
    image = Image.fromarray(picture(0, (97, 61)))
    image.save(path, **({'lossless': True} if suffix == 'webp' else {}))
    if share < 1:
        truncate(path, share)
    found = look(str(path), Loader())
    assert bool(found.error) == (share < 1)
    if share == 1:
        assert found.stored_wh == found.loaded_wh == (97, 61)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp', 'tif'])
@pytest.mark.parametrize('bytes_', [1, 2, 5, 12, 60])
def test_missing_last_bytes(tmp_path, suffix, bytes_):
    """OpenCV refuses the file, or fills what is missing of a JPEG in silence."""
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(picture(0, (97, 61))).save(path)
    path.write_bytes(path.read_bytes()[:-bytes_])
    assert (cv2.imread(str(path)) is None) == (suffix != 'jpg')
    assert look(str(path), Loader()).error


@pytest.mark.parametrize(
    ('mode', 'suffix'), [('L', 'jpg'), ('CMYK', 'jpg'), ('P', 'png'), ('RGBA', 'png'), ('I;16', 'png'), ('1', 'png')]
)
def test_unusual_modes_are_fine(tmp_path, mode, suffix):
    path = tmp_path / f'a.{suffix}'
    if mode == 'I;16':
        Image.fromarray(np.arange(97 * 61, dtype=np.uint16).reshape(61, 97)).save(path)
    else:
        Image.fromarray(picture(0, (97, 61))).convert(mode).save(path)
    found = look(str(path), Loader())
    assert (found.error, found.loaded_wh) == ('', (97, 61))


def chunk(kind: bytes, content: bytes, crc: int = 0) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content) ^ crc)


@pytest.mark.parametrize(
    'extra',
    [
        chunk(b'zTXt', b'Comment\0\0' + zlib.compress(b'x' * 70_000_000)),
        chunk(b'iCCP', b'p\0\0' + zlib.compress(b'y' * 70_000_000)),
        chunk(b'tEXt', b'Comment\0text', crc=1),
    ],
    ids=['long text', 'long profile', 'wrong sum of a text'],
)
def test_chunks_that_pil_refuses_and_the_pipeline_reads(tmp_path, extra):
    path = tmp_path / 'a.png'
    Image.fromarray(picture(0, (97, 61))).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:33] + extra + content[33:])
    with pytest.raises((OSError, ValueError)), Image.open(path) as image:
        image.load()
    found = look(str(path), Loader())
    assert (found.error, found.loaded_wh) == ('', (97, 61))


def deep(coco: CocoFolder, low: int, high: int, suffix: str = 'png') -> None:
    """Give the training pictures 16 bits with values of a range."""
    for image in coco.content['train']['images']:
        image['file_name'] = f'{image["id"]}.{suffix}'
        values = np.random.default_rng(image['id']).integers(low, high + 1, (60, 80), np.uint16)
        values.flat[:2] = low, high
        assert cv2.imwrite(str(coco.root / 'train' / image['file_name']), values)
    coco.write()


@pytest.mark.parametrize('suffix', ['png', 'tiff'])
@pytest.mark.parametrize(
    ('low', 'high', 'left', 'fatal'),
    [(0, 65535, (0, 255), False), (1440, 2192, (5, 8), True), (0, 4095, (0, 15), True)],
)
def test_depth_that_the_pipeline_does_not_keep(coco, suffix, low, high, left, fatal):
    deep(coco, low, high, suffix)
    finding = only(coco.scan())
    assert (finding.kind, finding.fatal) == ('image of more than 8 bits', fatal)
    assert '6 of 6 opened images have 16 bits or more' in finding.found
    assert f': {low} to {high} become {left[0]} to {left[1]}' in finding.found
    assert coco.scan(pipeline=[dict(LOAD[0], color_type='unchanged'), LOAD[1]]).findings == []


RESIZE = dict(type='Resize', scale=(96, 64), keep_ratio=True)


@pytest.mark.parametrize(
    'steps',
    [
        [RESIZE],
        [dict(RESIZE, type=mmcv.transforms.Resize)],
        [dict(type='RandomFlip', prob=0.5), RESIZE],
        [dict(type='RandomResize', scale=(960, 640), ratio_range=(0.1, 2.0), keep_ratio=True)],
        [dict(type='RandomResize', scale=[(96, 64), (960, 640)], keep_ratio=True)],
        [dict(type='RandomChoiceResize', scales=[(960, 640), (96, 64)], keep_ratio=True)],
        [dict(type='RandomChoice', transforms=[[dict(type='RandomFlip')], [RESIZE]])],
        [dict(type='vitdense.DETRResize', scale=(96, 64))],
        [dict(type='mmseg.ResizeShortestEdge', scale=64, max_size=96)],
    ],
)
def test_image_that_is_resized_to_nothing(coco, steps):
    """OpenCV's error is about inv_scale_x, in the middle of the training."""
    write_picture(coco.root / 'train/2.jpg', 2, (2000, 1))
    coco.content['train']['images'][1].update(width=2000, height=1)
    for annotation in coco.content['train']['annotations'][3:6]:
        annotation['bbox'] = [5 + 40 * annotation['id'], 0, 20, 1]
    coco.write()
    finding = only(coco.scan(pipeline=[*LOAD, *steps]))
    assert (finding.kind, finding.fatal, finding.leave_out) == ('image that is resized to nothing', True, 'image')
    assert finding.where == f'{coco.root}/train/2.jpg (image 2)'
    assert '2000 x 1' in finding.found
    assert re.search(r'makes \d+ x 0$', finding.found)


def test_sizes_are_those_of_the_transforms():
    """Against what mmcv, mmseg and ours make of images of all shapes."""
    wh = np.array([(640, 480), (480, 640), (1, 1), (333, 7), (500, 500), (1999, 31), (97, 1283)])
    steps = [
        RESIZE,
        dict(type='Resize', scale_factor=0.37, keep_ratio=True),
        dict(type='vitdense.DETRResize', scale=(333, 200)),
        dict(type='mmseg.ResizeShortestEdge', scale=64, max_size=96),
    ]
    for step in steps:
        [(_, sizes)] = resized([step], wh)
        transform = TRANSFORMS.build(step)
        for (width, height), size in zip(wh, sizes.astype(int).tolist(), strict=True):
            if min(size) < 1:
                continue
            image = np.zeros((height, width, 3), np.uint8)
            made = transform(dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2]))['img']
            assert made.shape[1::-1] == tuple(size), (step, width, height)


@pytest.mark.parametrize(
    'steps', [[dict(RESIZE, keep_ratio=False)], [dict(type='RandomCrop', crop_size=(1, 1)), RESIZE], [dict(type='Own')]]
)
def test_other_pipelines_are_not_blamed(steps):
    assert list(resized(steps, np.array([(2000, 1)]))) == []


def test_a_single_pixel_is_a_remark(coco):
    write_picture(coco.root / 'train/2.jpg', 2, (800, 9))
    coco.content['train']['images'][1].update(width=800, height=9)
    for annotation in coco.content['train']['annotations'][3:6]:
        annotation['bbox'] = [5 + 40 * annotation['id'], 0, 20, 9]
    coco.write()
    finding = only(coco.scan(pipeline=[*LOAD, RESIZE]))
    assert (finding.kind, finding.fatal) == ('image that is resized to nothing', False)
    assert 'makes 96 x 1' in finding.found


def test_tiny_images(tmp_path):
    for wh in ((1, 1), (3, 1), (7, 9)):
        path = tmp_path / 'a.jpg'
        Image.fromarray(picture(0, wh)).save(path)
        assert look(str(path), Loader()).loaded_wh == wh


def test_images_that_only_the_loader_can_read(tmp_path):
    path = tmp_path / 'a.hdr'
    assert cv2.imwrite(str(path), np.ones((12, 20, 3), np.float32))
    assert look(str(path), Loader()).loaded_wh == (20, 12)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('says', ['turned', 'stored'])
def test_exif_orientation(coco, orientation, says):
    """The loader turns the image: labels have to be those of the turned one, and one has to be able to tell."""
    path = coco.root / 'train/2.jpg'
    save_turned(path, 2, orientation, (80, 60))
    swapped = orientation in (5, 6, 7, 8)
    loaded = cv2.imread(str(path)).shape[1::-1]
    assert loaded == ((60, 80) if swapped else (80, 60)), 'what OpenCV does'
    if swapped and says == 'turned':
        coco.content['train']['images'][1].update(width=60, height=80)
        for annotation in coco.content['train']['annotations'][3:6]:
            annotation['bbox'] = [10, 10, 18, 30]
    coco.write()
    report = coco.scan()
    if orientation == 1:
        assert report.findings == []
        return
    (finding,) = [f for f in report.findings if f.kind != 'box given twice']
    assert finding.kind == 'EXIF orientation'
    assert finding.where == f'{path} (image 2)'
    assert f'orientation {orientation} ' in finding.found
    assert finding.fatal == (not (swapped and says == 'turned'))


def test_exif_of_a_square_image_cannot_be_decided(coco):
    save_turned(coco.root / 'train/2.jpg', 2, 6, (60, 60))
    coco.content['train']['images'][1]['width'] = 60
    coco.content['train']['annotations'][5]['bbox'] = [30, 12, 18, 30]
    coco.write()
    finding = only(coco.scan())
    assert (finding.kind, finding.fatal) == ('EXIF orientation', True)
    assert 'upright' in finding.found


@pytest.mark.parametrize(
    'settings',
    [dict(color_type='color_ignore_orientation'), dict(color_type='unchanged'), dict(imdecode_backend='pillow')],
)
def test_exif_and_other_loaders(coco, settings):
    """The size that counts is that of the image as this pipeline loads it."""
    save_turned(coco.root / 'train/2.jpg', 2, 6, (80, 60))
    turns = 'imdecode_backend' in settings
    report = coco.scan(pipeline=[dict(LOAD[0], **settings), LOAD[1]])
    assert [f.kind for f in report.fatal] == (['EXIF orientation'] if turns else [])


def test_loaders_that_are_not_known():
    assert find_loader([dict(type='LoadMultiChannelImageFromFiles')]) is None
    assert find_loader([dict(type='mmdet.LoadImageFromFile', imdecode_backend='tifffile')]) is None
    assert find_loader([dict(type='mmcv.LoadImageFromFile', color_type='grayscale')]) == Loader('grayscale')
    assert find_loader([dict(type='Resize')]) == Loader()


def test_images_of_an_unknown_loader_are_not_opened(coco):
    (coco.root / 'train/3.jpg').write_text('for some other loader')
    report = coco.scan(pipeline=[dict(type='LoadMultiChannelImageFromFiles')])
    assert (report.opened, report.findings) == (0, [])
    assert 'images not opened' in report.note


def test_same_picture_twice_and_leak_are_remarks(coco):
    shutil.copy(coco.root / 'train/1.jpg', coco.root / 'train/4.jpg')
    shutil.copy(coco.root / 'train/2.jpg', coco.root / 'val/1.jpg')
    train, val = scan_data(coco.config(), check='full')
    twice, leak = only(train), only(val)
    assert (twice.kind, twice.where, twice.fatal) == ('same picture twice', f'{coco.root}/train/4.jpg', False)
    assert f'{coco.root}/train/1.jpg' in twice.found
    assert (leak.kind, leak.where, leak.fatal) == ('leak', f'{coco.root}/val/1.jpg', False)
    assert f'{coco.root}/train/2.jpg' in leak.found
    raise_findings([train, val])
    assert only(scan_data(coco.config(), check='full')[1]).kind == 'leak', 'from the cache as well'


def test_sample_opens_some_but_misses_no_missing_file(coco, monkeypatch):
    monkeypatch.setattr(scan, 'MOST_OPENED', 3)
    (coco.root / 'train/6.jpg').unlink()
    (coco.root / 'train/2.jpg').write_text('not opened')
    report = coco.scan('sample')
    assert report.opened == 3
    assert set(report.digests) == {f'{coco.root}/train/{i}.jpg' for i in (1, 2, 4)}
    assert 'missing image' in kinds(report)
    assert coco.scan('full').opened == 5


def test_spread_is_even_and_deterministic():
    assert spread(range(5), None) == spread(range(5), 5) == [0, 1, 2, 3, 4]
    assert spread(range(10), 4) == [0, 2, 5, 7]
    gaps = np.diff(spread(range(118287), 500))
    assert set(gaps.tolist()) <= {236, 237}


def test_progress_bar_only_on_a_terminal(coco, capsys, monkeypatch):
    coco.scan()
    assert capsys.readouterr().out == ''
    assert pictures.CONSOLE.is_interactive is False
