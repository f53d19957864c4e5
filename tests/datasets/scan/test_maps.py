"""Maps that are no maps, and files that a data set of mmseg does not read."""

import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')

from mmengine.config import Config
from support.scan import kinds, only, picture
from support.seg import CLASSES, LOAD, SegFolder, build

from vitdense.checks import Run, check
from vitdense.datasets.scan import drop_findings, raise_findings, scan_data
from vitdense.findings import RunError

HW = (60, 80)
VALUES = np.tile(np.array([0, 1, 2, 255], np.uint8), (60, 20))
WITH_TIFF = dict(seg_map_suffix='.tif')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def seg(tmp_path) -> SegFolder:
    return SegFolder(tmp_path / 'data')


def save_tiffs(seg: SegFolder, values: np.ndarray) -> None:
    for i in range(5):
        Image.fromarray(values).save(seg.map(i).with_suffix('.tif'))


def loaded(seg: SegFolder, **changes) -> np.ndarray:
    """The first map as mmseg loads it."""
    return build(dict(seg.config(**changes).train_dataloader.dataset))[0]['gt_seg_map']


@pytest.mark.parametrize(
    ('mode', 'found'),
    [('RGB', '3 channels, all of them equal'), ('LA', '2 channels'), ('RGBA', '4 channels'), ('CMYK', '4 channels')],
)
def test_maps_of_several_channels_are_all_that_is_told(seg, mode, found):
    """Nothing follows from it, such as that there is nothing to learn or no image."""
    for i in range(5):
        Image.fromarray(VALUES).convert('RGB').convert(mode).save(seg.map(i), 'TIFF' if mode == 'CMYK' else 'PNG')
    report = seg.scan()
    assert kinds(report) == {'semantic map of several channels': 5}
    assert report.findings[0].found == found
    assert (report.images, report.histogram) == (0, [])


def test_palette_with_an_alpha_channel(seg):
    """PIL gives the indices of one with transparent colours, and two channels of one with an alpha channel."""
    image = Image.fromarray(VALUES).convert('P')
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(seg.map(0), transparency=0)
    assert seg.scan().findings == []
    np.testing.assert_array_equal(loaded(seg), VALUES)
    image.convert('PA').save(seg.map(0), 'TIFF')
    assert only(seg.scan()).found == f'{loaded(seg).shape[2]} channels'


@pytest.mark.parametrize(('content', 'found'), [(b'', 'is empty'), (b'class 1', 'is no image')])
def test_unreadable_maps_are_all_that_is_told(seg, content, found):
    for i in range(5):
        seg.map(i).write_bytes(content)
    report = seg.scan()
    assert kinds(report) == {'unreadable semantic map': 5}
    assert {finding.found for finding in report.findings} == {found}
    with pytest.raises(RunError, match='by hand') as error:
        raise_findings([report])
    assert '--lenient' not in str(error.value), 'nothing would be left'
    with pytest.raises(RunError, match='--lenient would leave out all 5 images'):
        drop_findings(seg.config(), [report], seg.root)


def test_unreadable_images_are_all_that_is_told(seg):
    for i in range(5):
        seg.image(i).write_bytes(b'')
    assert kinds(seg.scan()) == {'unreadable image': 5}


@pytest.mark.parametrize(('kind', 'void'), [(np.int32, -1), (np.float32, -1), (np.uint16, 65535), (np.int32, 255)])
def test_numbers_of_any_type_are_read_as_mmseg_does(seg, kind, void):
    """Whole ones, and those of which the cast to 8 bits makes 255."""
    values = VALUES.astype(kind)
    values[values == 255] = void
    save_tiffs(seg, values)
    np.testing.assert_array_equal(loaded(seg, **WITH_TIFF), VALUES)
    report = seg.scan(**WITH_TIFF)
    assert report.findings == []
    assert report.maps.others == [255]
    assert kinds(seg.scan(**WITH_TIFF, ignore_index=250)) == {'value that is no class': 5}


@pytest.mark.parametrize('value', [0.5, np.nan, np.inf])
def test_fractions_are_no_classes(seg, value):
    values = VALUES.astype(np.float32)
    values[0, 0] = value
    save_tiffs(seg, values)
    report = seg.scan(**WITH_TIFF)
    assert kinds(report) == {'semantic map of fractions': 5}
    assert report.findings[0].found == f'float32 with values such as {value:g}'


def test_values_beyond_8_bits_among_many_classes(seg):
    """Class 300 would be trained on as class 44, without a word."""
    classes = [f'c{i}' for i in range(301)]
    for i in range(5):
        seg.save_map(i, np.tile(np.array([0, 100, 200, 300], np.uint16), (60, 20)))
    metainfo = dict(classes=classes, palette=[[0, 0, 0]] * 301)
    assert set(np.unique(loaded(seg, metainfo=metainfo))) == {0, 44, 100, 200}
    report = seg.scan(metainfo=metainfo)
    assert kinds(report) == {'value beyond 8 bits': 5, 'class without pixels': 1}
    assert report.findings[0].found == 'found 300'


@pytest.mark.parametrize(
    ('changes', 'others'),
    [
        (dict(), [255]),
        (dict(ignore_index=2, metainfo=dict(classes=CLASSES[:2])), [2]),
        (dict(reduce_zero_label=True, metainfo=dict(classes=CLASSES[:2])), [255]),
    ],
)
def test_labels_that_are_no_class_are_known(seg, changes, others):
    if 2 in others:
        for i in range(5):
            seg.save_map(i, np.where(VALUES == 255, 0, VALUES))
    report = seg.scan(**changes)
    assert report.fatal == []
    assert report.maps.others == others
    assert report.maps.others == sorted(set(np.unique(loaded(seg, **changes))) - set(range(len(report.classes))))
    assert seg.scan(**changes).maps == report.maps, 'from the cache'


@pytest.mark.parametrize('reduced', [False, True])
def test_a_label_that_the_heads_ignore_is_no_fault(seg, reduced):
    """mmseg goes by its heads and metrics, and not by ``ignore_index`` of the data set."""
    for i in range(5):
        seg.save_map(i, np.where(VALUES == 255, 250 + reduced, VALUES + reduced))
    cfg = seg.config(reduce_zero_label=reduced)
    assert kinds(scan_data(cfg, ('train',))[0]) == {'value that is no class': 5}
    cfg.model = dict(decode_head=[dict(ignore_index=250), dict()], auxiliary_head=dict(ignore_index=0))
    [report] = scan_data(cfg, ('train',))
    assert report.findings == []
    assert report.maps.others == [250]
    assert report.per_class == dict.fromkeys(CLASSES, (5, 0)), 'a class that a head ignores is one all the same'


def left_out(cfg: Config, splits: tuple[str, ...] = ('train',)) -> dict[str, str]:
    """What the remarks about files that are not read say, by their keys."""
    reports = scan_data(cfg, splits)
    raise_findings(reports)
    cfg.model = dict(type='EncoderDecoder')
    found = check(Run(cfg, splits, reports), 'data')
    assert {(finding.kind, finding.fatal) for finding in found} <= {('file left out', False)}
    return {finding.where.removeprefix('train_dataloader.dataset.'): finding.found for finding in found}


@pytest.mark.parametrize('suffix', ['.png', '.jpeg', '.JPG'])
def test_images_of_other_suffixes_and_their_maps_are_counted(seg, suffix):
    for i in (1, 3):
        seg.image(i).rename(seg.image(i).with_suffix(suffix))
    (seg.root / 'images/.1.jpg').write_bytes(b'hidden')
    (seg.root / 'images/notes.txt').write_text('of another kind')
    assert left_out(seg.config()) == {
        'img_suffix': f"'.jpg' leaves out 2 images in {seg.root}/images: 1{suffix}, 3{suffix}",
        'data_prefix.seg_map_path': f'2 maps without an image in {seg.root}/maps: 1.png, 3.png',
    }


def test_files_of_a_clean_data_set_are_all_read(seg):
    assert left_out(seg.config()) == {}
    assert left_out(seg.config(indices=2)) == {}, 'a smaller set is meant'
    (seg.root / 'names.txt').write_text('0\n1\n')
    assert left_out(seg.config(ann_file='names.txt')) == {}, 'a list of names is meant'


def test_images_and_maps_in_one_folder(tmp_path):
    """The maps are no images of another suffix; the one of 2.jpeg is without its image."""
    seg = SegFolder(tmp_path / 'data')
    for i in range(5):
        seg.map(i).rename(seg.root / f'images/{i}.png')
    (seg.root / 'images/0_colours.png').write_bytes(b'')
    one = dict(img_path='images', seg_map_path='images')
    found = left_out(seg.config(data_prefix=one))
    assert found == {'data_prefix.seg_map_path': f'1 maps without an image in {seg.root}/images: 0_colours.png'}
    seg.image(2).rename(seg.root / 'images/2.jpeg')
    found = left_out(seg.config(data_prefix=one))
    assert found['img_suffix'] == f"'.jpg' leaves out 1 images in {seg.root}/images: 2.jpeg"


def test_suffixes_of_cityscapes(seg):
    """Beside the maps are others with colours, which are no maps by their names."""
    for kind, suffix in (('images', '_leftImg8bit.jpg'), ('maps', '_gtFine_labelTrainIds.png')):
        (seg.root / kind / 'ulm').mkdir()
        for i in range(5):
            path = seg.image(i) if kind == 'images' else seg.map(i)
            path.rename(seg.root / kind / f'ulm/{i}{suffix}')
    (seg.root / 'maps/ulm/0_gtFine_color.png').write_bytes(b'')
    changes = dict(img_suffix='_leftImg8bit.jpg', seg_map_suffix='_gtFine_labelTrainIds.png')
    assert left_out(seg.config(**changes)) == {}
    (seg.root / 'images/ulm/4_leftImg8bit.jpg').rename(seg.root / 'images/ulm/4_leftImg8bit.png')
    assert left_out(seg.config(**changes)) == {
        'img_suffix': f"'_leftImg8bit.jpg' leaves out 1 images in {seg.root}/images: ulm/4_leftImg8bit.png",
        'data_prefix.seg_map_path': f'1 maps without an image in {seg.root}/maps: ulm/4_gtFine_labelTrainIds.png',
    }


def test_what_another_data_set_reads_is_not_left_out(seg):
    for i in (1, 3):
        Image.fromarray(picture(9 + i)).save(seg.image(i).with_suffix('.png'))
        seg.image(i).unlink()
    cfg = seg.config()
    node = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[node, dict(node, img_suffix='.png')])
    assert left_out(cfg) == {}
    cfg = seg.config()
    cfg.val_dataloader = dict(dataset=dict(node, img_suffix='.png'))
    assert left_out(cfg, ('train', 'val')) == {}
    assert left_out(cfg) == {}, 'of the validation, which is not scanned, nothing is known'
    cfg.val_dataloader = cfg.train_dataloader
    assert len(left_out(cfg)) == 2, 'except if it is the training over again'


def test_a_file_added_later_is_noticed(seg):
    assert left_out(seg.config()) == {}
    shutil.copy(seg.image(0), seg.root / 'images/7.bmp')
    assert '7.bmp' in left_out(seg.config())['img_suffix']


def test_a_missing_map_that_is_there_by_another_name(seg):
    seg.map(0).rename(seg.root / 'maps/0.PNG')
    finding = only(seg.scan())
    assert (finding.kind, finding.found) == ('missing semantic map', 'there is no such file, but 0.PNG')


def test_other_decoders_and_loaders(seg):
    """The cast is that of mmseg's LoadAnnotations; with another loader a value above 255 is only no class."""

    class LoadAnnotations:
        pass

    seg.save_map(0, np.full(HW, 300, np.uint16))
    assert only(seg.scan()).kind == 'value beyond 8 bits'
    assert only(seg.scan(pipeline=[LOAD[0], dict(type=LoadAnnotations)])).kind == 'value that is no class'
