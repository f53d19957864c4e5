"""Mistakes in semantic maps, as mmseg's loader sees them."""

import io
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip('mmseg')

import mmseg.datasets.transforms  # noqa: F401
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from support.scan import kinds, only, picture
from support.seg import CLASSES, LOAD, SegFolder, build, names

from vitdense.datasets.scan import drop_findings, raise_findings, scan, scan_data
from vitdense.datasets.scan.maps import LabelRule
from vitdense.findings import RunError
from vitdense.registry import DATASETS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def seg(tmp_path) -> SegFolder:
    return SegFolder(tmp_path / 'data')


def test_clean_data_has_no_finding(seg):
    report = seg.scan()
    assert (report.findings, report.images, report.opened) == ([], 5, 5)
    assert report.per_class == dict.fromkeys(CLASSES, (5, 0))
    assert seg.scan().cached


def test_faulty_files_are_named_and_dropped(seg):
    seg.map(0).unlink()
    seg.save_map(1, np.full((60, 80), 7, np.uint8))
    seg.save_map(2, np.zeros((50, 80), np.uint8))
    seg.map(3).write_bytes(seg.map(3).read_bytes()[:60])
    before = {path: path.read_bytes() for path in seg.root.rglob('*.*')}
    cfg = seg.config()
    reports = scan_data(cfg, ('train',), 'full')
    assert {(f.kind, f.where) for f in reports[0].fatal} == {
        ('missing semantic map', str(seg.map(0))),
        ('value that is no class', str(seg.map(1))),
        ('wrong image size', str(seg.image(2))),
        ('unreadable semantic map', str(seg.map(3))),
    }
    messages = {f.kind: f.found for f in reports[0].fatal}
    assert messages['value that is no class'] == 'found 7; 0 to 2 are classes, [255] ignored'
    assert messages['wrong image size'] == f'it is 80 x 60, {seg.map(2)} says 80 x 50'
    assert reports[0].images == 1
    with pytest.raises(RunError, match='--lenient'):
        raise_findings(reports)
    lines = drop_findings(cfg, reports, seg.root.parent / 'clean')
    assert '1 of 5 images are left' in lines[-1]
    assert names(cfg.train_dataloader.dataset) == ['4']
    assert {path: path.read_bytes() for path in seg.root.rglob('*.*')} == before
    assert scan_data(cfg, ('train',), 'full')[0].findings == []


@pytest.mark.parametrize('indices', [2, -2, [0, 3], [-1, -3], [1, -1]])
def test_indices_leave_the_images_that_mmseg_takes(seg, indices):
    cfg = seg.config(indices=indices)
    report = scan_data(cfg, ('train',), 'full')[0]
    taken = names(cfg.train_dataloader.dataset)
    assert report.images == len(taken)
    assert sorted(Path(path).stem for path in report.digests) == sorted(taken)
    assert report.findings == []


def test_error_has_the_histogram_of_the_values(seg):
    """Of all maps: 60 x 80 pixels each, one without 1, one with 3 and 9 instead of 255."""
    seg.save_map(1, np.tile(np.array([0, 3, 2, 255], np.uint8), (60, 20)))
    seg.save_map(2, np.tile(np.array([0, 1, 9, 3], np.uint8), (60, 20)))
    seg.map(4).write_bytes(b'no picture')
    with pytest.raises(RunError) as caught:
        raise_findings([seg.scan()])
    lines = str(caught.value).splitlines()
    start = lines.index('  values of the 4 maps opened: share of the pixels, number of maps, meaning')
    assert [tuple(line.split()) for line in lines[start + 1 : start + 7]] == [
        ('0', 20 * '#', '25.00', '%', '4', 'road'),
        ('1', 15 * '#', '18.75', '%', '3', 'car'),
        ('2', 15 * '#', '18.75', '%', '3', 'sky'),
        ('3', 10 * '#', '12.50', '%', '2', 'NO', 'CLASS'),
        ('9', 5 * '#', '6.25', '%', '1', 'NO', 'CLASS'),
        ('255', 15 * '#', '18.75', '%', '3', 'ignored'),
    ]
    assert 'reduce_zero_label' not in str(caught.value), 'it would not help'


def test_long_histogram_shows_what_is_wrong(seg):
    seg.save_map(1, np.arange(4800, dtype=np.uint16).reshape(60, 80) % 40)
    report = seg.scan(metainfo=dict(classes=[f'c{i}' for i in range(38)]))
    assert [line.split()[-1] for line in report.histogram[1:]].count('CLASS') == 2
    assert len(report.histogram) == 18
    assert report.histogram[-1] == '  and 25 more values'


@pytest.mark.parametrize('reduce', [False, True])
def test_reduce_zero_label_is_suggested(seg, reduce):
    """Masks from 0, which is no class, to 3; and such from 0, which is a class, to 2."""
    for i in range(5):
        seg.save_map(i, np.tile(np.array([0, 1, 2, 2 if reduce else 3], np.uint8), (60, 20)))
    report = seg.scan(reduce_zero_label=reduce)
    if reduce:
        assert only(report).found.endswith('0 is ignored: if it stands for road, reduce_zero_label has to be False')
    else:
        assert report.histogram[-1] == 'with reduce_zero_label=True each is a class or ignored'


@pytest.mark.parametrize('split', ['train', 'val'])
def test_unreadable_and_same_images(seg, split):
    seg.image(1).write_bytes(seg.image(1).read_bytes()[:300])
    seg.image(2).unlink()
    seg.image(4).write_bytes(seg.image(3).read_bytes())
    report = seg.scan(split=split)
    assert kinds(report) == {'unreadable image': 1, 'same picture twice': 1}, '2 is not listed without its image'
    assert report.images == 3


@pytest.mark.parametrize(
    ('mode', 'ok'),
    [('P', True), ('1', True), ('L', True), ('RGB', False), ('LA', False), ('RGBA', False), ('I;16', True)],
)
def test_modes_of_maps(seg, mode, ok):
    """A palette gives its indices; several channels break the training later, with a message about shapes."""
    values = np.tile(np.array([0, 1], np.uint8), (60, 40))
    if mode == 'P':
        image = Image.fromarray(values).convert('P')
        image.putpalette([0, 0, 0, 200, 10, 10])
    elif mode == 'I;16':
        image = Image.fromarray(values.astype(np.uint16))
    else:
        image = Image.fromarray(values * (255 if mode == '1' else 1)).convert(mode)
    image.save(seg.map(1))
    dataset = build(dict(seg.config().train_dataloader.dataset))
    loaded = dataset[1]['gt_seg_map']
    assert (loaded.ndim == 2) == ok, 'what mmseg does'
    report = seg.scan()
    if ok:
        assert report.findings == []
        np.testing.assert_array_equal(loaded, values)
    else:
        finding = only(report)
        assert (finding.kind, finding.where) == ('semantic map of several channels', str(seg.map(1)))
        assert finding.found.startswith(f'{loaded.shape[2]} channels')


def test_palettes_become_colours_with_opencv(seg):
    """The scan uses the decoder of the pipeline: that of OpenCV turns a palette into three channels."""
    image = Image.fromarray(np.zeros((60, 80), np.uint8)).convert('P')
    image.putpalette([9, 8, 7])
    image.save(seg.map(1))
    report = seg.scan(pipeline=[LOAD[0], dict(LOAD[1], imdecode_backend='cv2')])
    assert '3 channels' in only(report).found


def test_values_above_255_are_not_wrapped(seg):
    """mmseg casts to 8 bits: 256 would be trained on as road."""
    seg.save_map(1, np.tile(np.array([0, 1, 2, 256], np.uint16), (60, 20)))
    dataset = build(dict(seg.config().train_dataloader.dataset))
    assert set(np.unique(dataset[1]['gt_seg_map'])) == {0, 1, 2}
    assert 'found 256' in only(seg.scan()).found


@pytest.mark.parametrize(
    ('changes', 'wrong'),
    [
        (dict(), '3'),
        (dict(reduce_zero_label=True), None),
        (dict(ignore_index=3), '255'),
        (dict(metainfo=dict(classes=[*CLASSES, 'tree'])), None),
    ],
)
def test_what_counts_as_a_class(seg, changes, wrong):
    seg.save_map(1, np.tile(np.array([0, 1, 2, 3], np.uint8), (60, 20)))
    report = seg.scan(**changes)
    if wrong is None:
        assert report.fatal == []
    else:
        assert f'found {wrong};' in report.fatal[0].found


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    number=st.integers(1, 6),
    reduce=st.booleans(),
    chosen=st.lists(st.integers(0, 5), unique=True),
    values=st.lists(st.integers(0, 255), min_size=2, max_size=8),
)
def test_rule_agrees_with_the_loader_of_mmseg(number, reduce, chosen, values):
    """A value is wrong exactly where mmseg's own loader makes a label of it that is neither a class nor 255."""
    old = [f'c{i}' for i in range(number)]
    new = [old[i] for i in chosen if i < number] or old
    base = DATASETS.get('mmseg.BaseSegDataset')
    kind = type('Known', (base,), {'METAINFO': dict(classes=old)})
    dataset = kind(lazy_init=True, metainfo=dict(classes=new), reduce_zero_label=reduce)
    rule = LabelRule.of(dataset)
    loader = TRANSFORMS.build(dict(type='mmseg.LoadAnnotations'))
    array = np.array([values] * 2, np.uint8)
    labels = loaded_labels(loader, array, dataset)
    wrong = {value for value, label in zip(values, labels, strict=True) if label != 255 and label >= len(old)}
    assert set(rule.wrong(tuple(values))) == wrong
    right = {label for value, label in zip(values, labels, strict=True) if label != 255 and value not in wrong}
    assert rule.labels(tuple(values)) == right


def loaded_labels(loader, array: np.ndarray, dataset) -> list[int]:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, 'PNG')
    results = dict(
        seg_map_path='map.png', reduce_zero_label=dataset.reduce_zero_label, label_map=dataset.label_map, seg_fields=[]
    )
    loader.reduce_zero_label = None
    with patch('mmseg.datasets.transforms.loading.fileio.get', return_value=buffer.getvalue()):
        loader._load_seg_map(results)
    return results['gt_seg_map'][0].tolist()


def test_masks_of_0_and_255_teach_nothing(seg):
    for i in range(5):
        seg.save_map(i, np.tile(np.array([0, 255], np.uint8), (60, 40)))
    report = seg.scan(metainfo=dict(classes=['background', 'crack']))
    finding = only(report)
    assert (finding.kind, finding.fatal) == ('nothing to learn', True)
    assert '[0, 255]' in finding.found
    assert "['crack']" in finding.found


def test_class_without_pixels_is_a_remark(seg):
    report = seg.scan(metainfo=dict(classes=[*CLASSES, 'tree']))
    finding = only(report)
    assert (finding.kind, finding.fatal) == ('class without pixels', False)
    assert "['tree'] in the 5 maps" in finding.found


def test_turned_image_and_its_map(seg):
    image = Image.fromarray(picture(1))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(seg.image(1), exif=exif)
    finding = only(seg.scan())
    assert (finding.kind, finding.where, finding.fatal) == ('EXIF orientation', str(seg.image(1)), True)
    seg.save_map(1, np.tile(np.array([0, 1, 2], np.uint8), (80, 20)))
    finding = only(seg.scan())
    assert (finding.kind, finding.fatal) == ('EXIF orientation', False)


def test_empty_split_says_what_is_there(seg):
    finding = only(seg.scan(img_suffix='.jpeg'))
    assert (finding.kind, finding.fatal) == ('empty data set', True)
    assert '*.jpeg in' in finding.found
    assert "'0.jpg'" in finding.found


def test_list_of_names(seg):
    (seg.root / 'names.txt').write_text('0\n3\n9\n')
    cfg = seg.config(ann_file='names.txt')
    reports = scan_data(cfg, ('train',), 'full')
    assert {(f.kind, f.where) for f in reports[0].findings} == {
        ('missing image', str(seg.image(9))),
        ('missing semantic map', str(seg.map(9))),
    }
    assert reports[0].images == 2
    drop_findings(cfg, reports, seg.root.parent / 'clean')
    assert names(cfg.train_dataloader.dataset) == ['0', '3']
    assert 'cannot list' in only(seg.scan(ann_file='nothing.txt')).found


def test_folders_in_folders_and_other_suffixes(seg):
    for kind, suffix in (('images', '_rgb.jpg'), ('maps', '_labels.png')):
        (seg.root / kind / 'town').mkdir()
        for i in range(2):
            path = seg.image(i) if kind == 'images' else seg.map(i)
            path.rename(seg.root / kind / 'town' / f'{i}{suffix}')
    seg.root.joinpath('maps/town/1_labels.png').unlink()
    cfg = seg.config(img_suffix='_rgb.jpg', seg_map_suffix='_labels.png')
    reports = scan_data(cfg, ('train',), 'full')
    assert reports[0].images == 1
    drop_findings(cfg, reports, seg.root.parent / 'clean')
    assert names(cfg.train_dataloader.dataset) == ['0_rgb']


def test_sample_and_off(seg, monkeypatch):
    monkeypatch.setattr(scan, 'MOST_OPENED', 2)
    assert seg.scan('sample').opened == 2
    seg.map(1).unlink()
    report = seg.scan('off')
    assert (report.images, report.opened, report.findings, report.note) == (5, 0, [], 'not checked')


def test_test_data_without_maps(seg):
    report = seg.scan(split='test', data_prefix=dict(img_path='images'), pipeline=LOAD[:1], test_mode=True)
    assert (report.findings, report.images, report.opened) == ([], 5, 5)


def test_generated_shapes(tmp_path):
    dataset = dict(
        type='vitdense.ShapesSegDataset', data_root=str(tmp_path / 's'), split='train', num_train=4, num_val=2
    )
    cfg = Config(dict(default_scope='mmseg', train_dataloader=dict(dataset=dict(dataset, pipeline=LOAD))))
    (report,) = scan_data(cfg, ('train',))
    assert (report.images, report.opened, report.fatal) == (4, 4, [])
    assert report.per_class['background'] == (4, 0)


def test_class_that_reads_no_list_of_names(seg):
    class Stubborn(DATASETS.get('mmseg.BaseSegDataset')):
        def load_data_list(self) -> list[dict]:
            self.ann_file = ''
            return super().load_data_list()

    seg.map(0).unlink()
    cfg = seg.config(type=Stubborn)
    with pytest.raises(RunError, match=r'Stubborn has 5 images where its ann_file .*\.txt lists 4'):
        drop_findings(cfg, scan_data(cfg, ('train',)), seg.root.parent / 'clean')


def test_a_class_that_a_data_set_of_mmseg_does_not_have(seg):
    cfg = seg.config(metainfo=dict(classes=('road', 'cra')))
    cfg.train_dataloader.dataset.type = 'mmseg.CityscapesDataset'
    [report] = scan_data(cfg, ('train',))
    [finding] = report.findings
    assert (finding.kind, finding.where) == ('class names', 'train_dataloader.dataset')
    assert "'cra'" in finding.found
