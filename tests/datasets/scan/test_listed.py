"""Data sets of other formats, through what they list."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmdet')

from mmdet.datasets import BaseDetDataset
from mmengine.config import Config
from support.scan import CLASSES, LOAD, CocoFolder, kinds, only, write_picture
from support.voc import VOC, xml

from vitdense.datasets.scan import drop_findings, scan_data
from vitdense.findings import RunError


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def voc(tmp_path) -> VOC:
    return VOC(tmp_path)


def test_table_and_pictures_of_voc(voc):
    """Difficult objects are not trained on; a name that is no class is told."""
    report = voc.scan()
    assert (report.classes, report.images, report.opened) == (CLASSES, 3, 3)
    assert report.per_class == {'circle': (3, 3), 'square': (0, 0), 'triangle': (0, 0)}
    finding = only(report)
    assert (finding.kind, finding.fatal) == ('class names', True)
    assert "'triangle' (nearest: 'star')" in finding.found
    again = voc.scan()
    assert again.cached
    assert again.per_class == report.per_class


def test_changes_of_one_xml_file_are_noticed(voc):
    voc.scan()
    voc.objects['1'].append(('square', (40, 5, 60, 40), 0))
    assert voc.scan().per_class['square'] == (1, 1)


def test_faults_of_voc_are_named(voc):
    (voc.root / 'VOC2007/JPEGImages/1.jpg').unlink()
    (voc.root / 'VOC2007/JPEGImages/2.jpg').write_text('no image')
    voc.objects['3'] = xml([('circle', (30, 5, 5, 40), 0)], wh=(90, 60))
    report = voc.scan()
    found = {finding.kind: finding for finding in report.fatal}
    assert set(found) == {'missing image', 'unreadable image', 'box of negative size', 'wrong image size'}
    assert 'JPEGImages/3.jpg' in found['box of negative size'].where
    with pytest.raises(RunError, match='would leave out all 3 images'):
        drop_findings(voc.config(), [report], voc.root / 'clean')


def test_boxes_beyond_the_image_are_remarks(voc):
    """Other formats have them on purpose: CrowdHuman's are of whole bodies."""
    voc.objects = {'1': [('circle', (-20, 5, 50, 100), 0)]}
    report = voc.scan()
    assert report.fatal == []
    assert kinds(report)['box beyond the edge of the image'] == 1


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        (dict(metainfo=dict(classes=('a', 'b'))), 'no object of the classes is left'),
        (dict(metainfo=dict(classes=('square',))), '1 with ignore_flag'),
        (dict(filter_cfg=dict(min_size=61)), '4 in images that filter_cfg leaves out'),
    ],
)
def test_nothing_left_says_why(voc, changes, says):
    (finding,) = (finding for finding in voc.scan(**changes).fatal if finding.kind == 'empty data set')
    assert says in finding.found


class Own(BaseDetDataset):
    """A format of a user: a JSON list of images with boxes."""

    METAINFO = dict(classes=CLASSES)

    def load_data_list(self) -> list[dict]:
        infos = json.loads(Path(self.ann_file).read_text())
        return [dict(info, img_path=f'{self.data_prefix["img_path"]}/{info["img_path"]}') for info in infos]


def own(root: Path, infos: list[dict], **changes):
    CocoFolder(root)
    (root / 'own.json').write_text(json.dumps(infos))
    dataset = dict(type=Own, ann_file=f'{root}/own.json', data_prefix=dict(img_path=f'{root}/train'), pipeline=LOAD)
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset | changes)))
    return scan_data(cfg, ('train',), 'full')[0]


def one(label=0, box=(5, 5, 30, 40), **fields) -> dict:
    return dict(bbox=list(box), bbox_label=label, ignore_flag=0, **fields)


def test_own_data_set(tmp_path):
    infos = [dict(img_path='1.jpg', img_id=1, instances=[one(0), one(2)]), dict(img_path='2.jpg', instances=[one(2)])]
    report = own(tmp_path / 'd', infos)
    assert (report.dataset, report.images, report.findings) == ('Own', 2, [])
    assert report.per_class == {'circle': (1, 1), 'square': (0, 0), 'triangle': (2, 2)}


@pytest.mark.parametrize(
    ('instance', 'kind'),
    [
        (one(3), 'annotation of an unknown category'),
        (one(-1), 'annotation of an unknown category'),
        (one(0, (float('nan'), 5, 30, 40)), 'box with NaN or infinity'),
        (one(0, (30, 5, 5, 40)), 'box of negative size'),
        (one(0, (0.1, 0.1, 0.4, 0.5)), 'box relative to the image'),
    ],
)
def test_faults_of_an_own_data_set(tmp_path, instance, kind):
    infos = [
        dict(img_path='1.jpg', width=80, height=60, instances=[instance]),
        dict(img_path='2.jpg', instances=[one()]),
    ]
    report = own(tmp_path / 'd', infos)
    assert [finding.kind for finding in report.fatal] == [kind]
    assert '1.jpg' in report.fatal[0].where
    assert report.fatal[0].leave_out == ''


def test_own_data_set_without_boxes_or_classes(tmp_path):
    report = own(tmp_path / 'd', [dict(img_path='1.jpg', text='a circle')], metainfo=dict(classes=None))
    assert (report.findings, report.images, report.per_class) == ([], 1, {})


def test_data_set_that_cannot_be_built(tmp_path):
    report = own(tmp_path / 'd', [], type='CrowdHumanDataset', data_root=str(tmp_path), extra_ann_file='nowhere.json')
    assert 'CrowdHumanDataset cannot be built: FileNotFoundError' in only(report).found


def test_crowdhuman(tmp_path):
    """Boxes of whole bodies leave the image, regions to ignore have the label -1."""
    CocoFolder(tmp_path)
    lines = []
    for i in (1, 2):
        box = dict(fbox=[-20, 5, 60, 90], hbox=[5, 5, 5, 5], vbox=[0, 5, 40, 55])
        lines.append(
            dict(ID=str(i), gtboxes=[dict(tag='person', **box), dict(tag='mask', extra=dict(ignore=1), **box)])
        )
    (tmp_path / 'annotation_train.odgt').write_text('\n'.join(map(json.dumps, lines)))
    dataset = dict(
        type='CrowdHumanDataset',
        data_root=str(tmp_path),
        ann_file='annotation_train.odgt',
        data_prefix=dict(img='train'),
        pipeline=LOAD,
    )
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    report = scan_data(cfg, ('train',), 'full')[0]
    assert (report.classes, report.images, report.per_class) == (('person',), 2, {'person': (2, 2)})
    assert report.fatal == []
    assert kinds(report) == {'box beyond the edge of the image': 2, 'annotations that are no objects': 1}


def test_a_misspelt_class_of_crowdhuman(tmp_path):
    """Its persons would all be regions to ignore."""
    CocoFolder(tmp_path)
    box = dict(fbox=[5, 5, 30, 40], hbox=[5, 5, 5, 5], vbox=[5, 5, 30, 40])
    line = json.dumps(dict(ID='1', gtboxes=[dict(tag='person', **box), dict(tag='mask', extra=dict(ignore=1), **box)]))
    (tmp_path / 'annotation_train.odgt').write_text(line)
    dataset = dict(type='CrowdHumanDataset', data_root=str(tmp_path), ann_file='annotation_train.odgt', pipeline=LOAD)
    dataset |= dict(data_prefix=dict(img='train'), metainfo=dict(classes=('persn',)))
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    (finding,) = scan_data(cfg, ('train',))[0].causes
    assert (finding.kind, finding.leave_out) == ('class names', '')
    assert "'persn' (nearest: 'person')" in finding.found


def test_wider_face(tmp_path):
    root = tmp_path / 'WIDER_train'
    places = root / 'Annotations'
    places.mkdir(parents=True)
    write_picture(root / '0--Parade/1.jpg', 1)
    content = xml([('face', (5, 5, 30, 40), 0), ('face', (40, 5, 60, 40), 0)])
    (places / '1.xml').write_text(content.replace('<annotation>', '<annotation><folder>0--Parade</folder>'))
    (tmp_path / 'train.txt').write_text('1')
    dataset = dict(
        type='WIDERFaceDataset',
        data_root=str(tmp_path),
        ann_file='train.txt',
        data_prefix=dict(img='WIDER_train'),
        pipeline=LOAD,
    )
    report = scan_data(Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset))), ('train',))[0]
    assert (report.findings, report.opened, report.per_class) == ([], 1, {'face': (1, 2)})


def test_panoptic_coco(tmp_path):
    """Its things are listed; the stuff is in maps."""
    folder = CocoFolder(tmp_path)
    content = folder.content['train']
    segments = [
        dict(id=1, category_id=1, bbox=[5, 5, 20, 20], area=400, iscrowd=0),
        dict(id=2, category_id=2, bbox=[0, 0, 80, 60], area=4000, iscrowd=0),
    ]
    panoptic = dict(
        images=content['images'][:1],
        annotations=[dict(image_id=1, file_name='1.png', segments_info=segments)],
        categories=[dict(id=1, name='circle', isthing=1), dict(id=2, name='ground', isthing=0)],
    )
    (tmp_path / 'panoptic.json').write_text(json.dumps(panoptic))
    dataset = dict(
        type='CocoPanopticDataset',
        data_root=str(tmp_path),
        ann_file='panoptic.json',
        data_prefix=dict(img='train', seg='maps'),
        metainfo=dict(classes=('circle', 'ground'), thing_classes=('circle',), stuff_classes=('ground',)),
        pipeline=LOAD,
    )
    report = scan_data(Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset))), ('train',))[0]
    assert (report.fatal, report.images, report.per_class['circle']) == ([], 1, (1, 1))


class OwnFolder(BaseDetDataset):
    """A data set of a user whose constructor takes a folder and nothing else."""

    def __init__(self, root: str) -> None:
        super().__init__(ann_file=root, metainfo=dict(classes=CLASSES))


def test_a_data_set_with_a_constructor_of_its_own_is_not_scanned(tmp_path):
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dict(type=OwnFolder, root=str(tmp_path)))))
    [report] = scan_data(cfg, ('train',), 'full')
    assert report.findings == []
    assert report.note == 'not scanned: type OwnFolder'


class OwnNumbers(Own):
    """With the numbers of NumPy."""

    def load_data_list(self) -> list[dict]:
        infos = super().load_data_list()
        for info in infos:
            info |= {key: np.int64(info[key]) for key in ('width', 'height') if key in info}
            for one in info['instances']:
                one |= dict(bbox=np.array(one['bbox'], np.float32), bbox_label=np.int64(one['bbox_label']))
        return infos


def test_numbers_of_numpy(tmp_path):
    size = dict(width=80, height=60)
    infos = [dict(img_path='1.jpg', img_id=1, instances=[one(0), one(2, (70, 20, 60, 30))], **size)]
    report = own(tmp_path, infos, type=OwnNumbers)
    assert kinds(report) == {'box of negative size': 1}
    assert report.per_class[CLASSES[0]] == (1, 1)
