"""Files of Pascal VOC that cannot be read, names in them that are no classes, and what --lenient does about both."""

from pathlib import Path

import pytest

pytest.importorskip('mmdet')

from mmengine.config import Config
from mmengine.registry import DefaultScope
from support.scan import CLASSES, LOAD, kinds, only, write_picture
from support.voc import VOC, xml

from vitdense.datasets.scan import drop_findings, raise_findings, scan_data
from vitdense.findings import RunError
from vitdense.registry import DATASETS

BOX = (5, 5, 30, 40)
ENTRY = 'annotation that cannot be read'
LINE = 'line of a list of names'


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def voc(tmp_path) -> VOC:
    """All three classes are there, and no other name."""
    voc = VOC(tmp_path / 'voc')
    voc.objects['3'] = [('circle', BOX, 0), ('triangle', (40, 5, 60, 40), 0)]
    return voc


def ids(cfg: Config) -> list[str]:
    """Images that mmdet's data set of the training has."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))
    return [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]


# --- names ---


@pytest.mark.parametrize('classes', [('circel', 'square', 'triangle'), ('Circle', 'square', 'triangle')])
def test_a_misspelt_class_is_a_fault(voc, classes):
    (finding,) = voc.scan(metainfo=dict(classes=classes)).fatal
    assert finding.kind == 'class names'
    assert f"{classes[0]!r} (nearest: 'circle')" in finding.found
    assert "in the file but no class of the config: ['circle']" in finding.found


def test_the_default_classes_are_told(voc):
    cfg = voc.config()
    del cfg.train_dataloader.dataset.metainfo
    with pytest.raises(RunError, match=r'gives no metainfo=dict\(classes=\(...\)\)'):
        raise_findings(scan_data(cfg, ('train',)))


def test_a_part_of_the_classes_on_purpose_is_a_remark(voc):
    finding = only(voc.scan(metainfo=dict(classes=('triangle', 'circle'))))
    assert (finding.kind, finding.fatal) == ('category that is no class', False)
    assert "['square'] and with it 1 annotations" in finding.found


def test_a_class_without_an_object_is_no_misspelling_where_all_names_are_classes(voc):
    assert voc.scan(metainfo=dict(classes=(*CLASSES, 'star'))).findings == []


def test_a_validation_may_lack_a_class(voc):
    finding = only(voc.scan('val', metainfo=dict(classes=('circle', 'star'))))
    assert (finding.kind, finding.fatal, finding.leave_out) == ('class names', False, '')


def test_a_class_that_another_set_of_the_training_has_is_not_missing(voc, tmp_path):
    other = VOC(tmp_path / 'other')
    names = dict(metainfo=dict(classes=('circle', 'triangle', 'star')))
    sets = [one.config(**names).train_dataloader.dataset for one in (voc, other)]
    both = dict(type='ConcatDataset', datasets=sets)
    reports = scan_data(Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=both))), ('train',))
    assert [[(one.kind, one.fatal) for one in report.findings] for report in reports] == [
        [('category that is no class', False)],
        [('category that is no class', False)],
    ]


def test_a_name_that_changes_in_one_file_is_noticed(voc):
    """Its object is not listed before and after."""
    voc.objects['1'] = [('circle', BOX, 0), ('star', (40, 5, 60, 40), 0)]
    assert "['star']" in only(voc.scan()).found
    voc.objects['1'] = [('circle', BOX, 0), ('moon', (40, 5, 60, 40), 0)]
    assert "['moon']" in only(voc.scan()).found


def test_lenient_takes_the_classes_of_the_config(voc):
    classes = dict(metainfo=dict(classes=('circel', 'square', 'triangle')))
    cfg = voc.config(**classes)
    lines = drop_findings(cfg, [voc.scan(**classes)], voc.root / 'clean')
    assert any('class names' in line for line in lines)
    assert ids(cfg) == ['1', '2', '3']


# --- files ---

OBJECT = '<annotation><object><name>circle</name>{}</object></annotation>'
BNDBOX = '<bndbox><xmin>{}</xmin><ymin>5</ymin><xmax>30</xmax>{}</bndbox>'


@pytest.mark.parametrize(
    ('spoil', 'says'),
    [
        (None, 'there is no such file'),
        ('', 'no XML: no element found'),
        ('<annotation>', 'no XML: no element found'),
        (OBJECT.format(''), 'object 1 (circle) has no bndbox'),
        (OBJECT.format(BNDBOX.format('', '<ymax>9</ymax>')), "object 1 (circle): xmin is '', expected a number"),
        (OBJECT.format(BNDBOX.format('a', '<ymax>9</ymax>')), "object 1 (circle): xmin is 'a', expected a number"),
        (OBJECT.format(BNDBOX.format('nan', '<ymax>9</ymax>')), "object 1 (circle): xmin is 'nan', expected a number"),
        (OBJECT.format(BNDBOX.format(5, '')), 'object 1 (circle): ymax is missing, expected a number'),
        (xml([('circle', BOX, 'yes')]), "object 1 (circle): difficult is 'yes', expected 0 or 1"),
        ('<annotation><object/></annotation>', 'object 1 has no name'),
        (xml([('circle', BOX, 0)], wh=('wide', 60)), "width of the size is 'wide', expected a whole number"),
        (xml([('circle', BOX, 0)], wh=(80.5, '')), "width of the size is '80.5', expected a whole number"),
        (xml([('circle', BOX, 0)], wh=(0, 0)), 'the size of the image is 0 x 0'),
    ],
)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_all_files_that_cannot_be_read_are_told_at_once(voc, spoil, says, split):
    voc.objects['1'] = spoil
    voc.objects['3'] = spoil
    report = voc.scan(split, filter_cfg=dict(min_size=32) if split == 'train' else None)
    broken = [finding for finding in report.fatal if finding.kind == ENTRY]
    assert [Path(finding.where).name for finding in broken] == ['1.xml', '3.xml']
    assert all(says in finding.found for finding in broken)
    assert {finding.leave_out for finding in broken} == {'image' if split == 'train' else ''}
    assert [finding.kind for finding in report.causes] == [ENTRY, ENTRY]
    assert report.per_class['circle'] == (1, 1) or '0 x 0' in says


def test_names_that_are_nearly_there(voc):
    """The images of VOC end in .jpg, whatever there is."""
    folder = voc.root / 'VOC2007'
    (folder / 'JPEGImages/1.jpg').rename(folder / 'JPEGImages/1.JPG')
    voc.objects['2'] = None
    cfg = voc.config()
    (folder / 'Annotations/2.XML').write_text('')
    assert [finding.found for finding in scan_data(cfg, ('train',))[0].fatal] == [
        'there is no such file, but 2.XML',
        'there is no such file, but 1.JPG',
    ]
    cfg = voc.config(ann_subdir='Labels')
    (finding, *_) = scan_data(cfg, ('train',))[0].fatal
    assert finding.found == f'there is no folder {folder}/Labels'


def test_several_faults_of_one_file(voc):
    """Objects of other names are not read, so nothing is wrong with them."""
    text = xml([('circle', ('', 'b', 30, 40), 0), ('star', ('', 5, 30, 40), 0)], wh=('', 60))
    voc.objects['2'] = text
    (finding,) = (one for one in voc.scan().fatal if one.kind == ENTRY)
    assert finding.found.split('; ') == [
        "width of the size is '', expected a whole number",
        "object 1 (circle): xmin is '', expected a number",
        "object 1 (circle): ymin is 'b', expected a number",
    ]


def test_lenient_leaves_out_images_of_a_training(voc):
    """Those whose file, picture or box is faulty; the list of the user stays as it is."""
    for i in (4, 5, 6):
        voc.objects[str(i)] = [('circle', BOX, 0)]
        write_picture(voc.root / f'VOC2007/JPEGImages/{i}.jpg', i)
    voc.objects['1'] = '<annotation>'
    voc.objects['4'] = xml([('circle', (30, 5, 5, 40), 0)])
    (voc.root / 'VOC2007/JPEGImages/5.jpg').write_text('no image')
    (voc.root / 'VOC2007/JPEGImages/6.jpg').unlink()
    cfg = voc.config()
    names = voc.root / 'VOC2007/ImageSets/train.txt'
    before = names.read_text()
    reports = scan_data(cfg, ('train',), 'full')
    assert (reports[0].images, reports[0].per_class['circle']) == (2, (2, 2))
    assert kinds(reports[0]) == {
        ENTRY: 1,
        'box of negative size': 1,
        'unreadable image': 1,
        'missing image': 1,
    }
    with pytest.raises(RunError, match='--lenient leaves them out'):
        raise_findings(reports)
    lines = drop_findings(cfg, reports, voc.root / 'clean')
    assert '2 of 6 images are left' in lines[-1]
    assert ids(cfg) == ['2', '3']
    assert names.read_text() == before
    assert scan_data(cfg, ('train',), 'full')[0].findings == []


def test_lenient_changes_no_ground_truth(voc):
    voc.objects['1'] = None
    with pytest.raises(RunError, match=f'by hand: {ENTRY}'):
        drop_findings(voc.config('val'), [voc.scan('val')], voc.root / 'clean')


def test_a_filter_does_not_move_the_lines(voc):
    """Positions are those in the list, not those among the images that a filter leaves."""
    voc.objects['1'] = []
    (voc.root / 'VOC2007/JPEGImages/3.jpg').unlink()
    changes = dict(filter_cfg=dict(filter_empty_gt=True))
    cfg = voc.config(**changes)
    drop_findings(cfg, scan_data(cfg, ('train',)), voc.root / 'clean')
    assert ids(cfg) == ['2']
    assert Path(cfg.train_dataloader.dataset.ann_file).read_text() == '1\n2\n'


# --- the list of names ---


@pytest.mark.parametrize(
    ('line', 'says'),
    [
        ('', 'the line is blank'),
        ('  ', "the line has nothing but blanks ('  ')"),
        ('2 ', "'2 ' has blanks around the name; the name is '2'"),
        ('\t2', "blanks around the name; the name is '2'"),
        ('2.jpg', "'2.jpg' has a suffix; the name is '2'"),
        ('2.xml', "'2.xml' has a suffix; the name is '2'"),
        ('2.jpg ', "'2.jpg ' has blanks around the name and a suffix; the name is '2'"),
        ('2 -1', "'2 -1' has more than a name; the name is '2'"),
        ('JPEGImages/2.jpg Annotations/2.xml', "has more than a name and a suffix and a folder; the name is '2'"),
        ('..\\JPEGImages\\2.jpg', "has backslashes and a suffix and a folder; the name is '2'"),
    ],
)
def test_a_line_that_is_no_name(voc, line, says):
    voc.lines = ['1', line, '3']
    cfg = voc.config()
    report = scan_data(cfg, ('train',))[0]
    (finding,) = report.causes
    assert (finding.kind, finding.where) == (LINE, f'{voc.root}/VOC2007/ImageSets/train.txt, line 2')
    assert says in finding.found
    drop_findings(cfg, [report], voc.root / 'clean')
    assert ids(cfg) == ['1', '3']


def test_a_byte_order_mark_before_the_first_name(voc):
    voc.lines = ['\ufeff1', '2', '3']
    (finding,) = voc.scan().causes
    assert "a byte order mark; the name is '1'" in finding.found


def test_a_name_without_a_file_is_no_fault_of_the_line(voc):
    voc.lines = ['1', '9', '3']
    (finding,) = voc.scan().causes
    assert (finding.kind, Path(finding.where).name) == (ENTRY, '9.xml')


def test_wider_face_has_its_files_elsewhere(tmp_path):
    root = tmp_path / 'WIDER_train'
    (root / 'Annotations').mkdir(parents=True)
    for i in '12':
        write_picture(root / f'0--Parade/{i}.jpg', int(i))
        content = xml([('face', BOX, 0)]).replace('<annotation>', '<annotation><folder>0--Parade</folder>')
        (root / f'Annotations/{i}.xml').write_text(content)
    (root / 'Annotations/3.xml').write_text(xml([('face', BOX, 0)]))
    (tmp_path / 'train.txt').write_text('1\n2.jpg\n3\n4')
    dataset = dict(type='WIDERFaceDataset', data_root=str(tmp_path), ann_file='train.txt', pipeline=LOAD)
    dataset |= dict(data_prefix=dict(img='WIDER_train'))
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    report = scan_data(cfg, ('train',))[0]
    assert [(one.kind, Path(one.where).name) for one in report.fatal] == [
        (LINE, 'train.txt, line 2'),
        (ENTRY, '3.xml'),
        (ENTRY, '4.xml'),
    ]
    assert 'there is no folder' in report.fatal[1].found
    drop_findings(cfg, [report], tmp_path / 'clean')
    assert ids(cfg) == ['1']
