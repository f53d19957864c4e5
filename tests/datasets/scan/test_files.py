"""Files that are no COCO files, empty splits, counts, wrappers and other types."""

import json
import re
from math import nan

import numpy as np
import pytest

pytest.importorskip('mmdet')

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmengine.config import Config
from mmengine.registry import METRICS, TRANSFORMS
from support.scan import CLASSES, LOAD, CocoFolder, instances, kinds, load, only

from vitdense.datasets import CocoDataset, ensure_shapes
from vitdense.datasets.scan import drop_findings, raise_findings, scan_data
from vitdense.evaluation.coco_eval import GroundTruth
from vitdense.findings import RunError


@pytest.fixture
def coco(tmp_path, monkeypatch) -> CocoFolder:
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    return CocoFolder(tmp_path / 'data')


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b'{"images": [', 'is no JSON file'),
        (b'\xff\xd8\xff\xe0', 'is no JSON file'),
        (b'[1, 2]', 'is no COCO file, .* found a list'),
        (b'{"a": 1}', r"is no COCO file, .* found the keys \['a'\]"),
        (b'{"images": {}, "annotations": [], "categories": []}', '"images" is something else'),
        (b'{"images": [], "annotations": [3], "categories": []}', '"annotations" is something else'),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1}]}', 'a category needs an id and a name'),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            'several',
        ),
    ],
)
def test_file_that_is_no_coco_file(coco, content, says):
    (coco.root / 'train.json').write_bytes(content)
    report = coco.scan()
    with pytest.raises(RunError, match=says) as error:
        raise_findings([report])
    assert 'by hand' in str(error.value)
    assert '--lenient' not in str(error.value)
    assert re.search(says, coco.scan('off').note)


def test_folder_instead_of_a_file(coco):
    assert f'the folder {coco.root}/train' in only(coco.scan(ann_file='train')).found
    assert 'not given' in only(coco.scan(ann_file='')).found


@pytest.mark.parametrize(
    ('spoil', 'changes', 'says'),
    [
        (lambda c: c.update(images=[], annotations=[]), {}, 'no image is left'),
        (
            lambda c: c.update(annotations=[]),
            {},
            'no object of the classes is left: there are 6 images and 0 annotations',
        ),
        (
            lambda c: c.update(annotations=[]),
            dict(filter_cfg=dict(filter_empty_gt=True)),
            'no image is left.*filter_cfg',
        ),
        (lambda c: None, dict(filter_cfg=dict(min_size=61)), 'no image is left.*min_size'),
    ],
)
def test_empty_split(coco, spoil, changes, says):
    spoil(coco.content['train'])
    coco.write()
    finding = only(coco.scan(**changes))
    assert (finding.kind, finding.fatal) == ('empty data set', True)
    assert re.search(says, finding.found)


def spoiled(**fields):
    return lambda content: [annotation.update(fields) for annotation in content['annotations']]


@pytest.mark.parametrize(
    ('spoil', 'changes', 'why'),
    [
        (spoiled(iscrowd=1), {}, '18 crowd regions'),
        (spoiled(ignore=True), {}, '18 with ignore'),
        (spoiled(bbox=[9, 9, 0.5, 20]), {}, '18 thinner than a pixel'),
        (spoiled(category_id=3), dict(metainfo=dict(classes=CLASSES[:2])), '18 of other classes'),
        (lambda c: None, dict(filter_cfg=dict(min_size=61)), '18 in images that filter_cfg leaves out'),
        (spoiled(bbox=[9, 9, -1, 20]), {}, '18 with a fault'),
    ],
)
def test_nothing_left_says_why(coco, spoil, changes, why):
    spoil(coco.content['train'])
    coco.write()
    (finding,) = [f for f in coco.scan(**changes).findings if f.kind == 'empty data set']
    assert why in finding.found
    assert 'there are 6 images and 18 annotations' in finding.found


@pytest.mark.parametrize(('number', 'told'), [(8, False), (9, True)])
def test_half_lost_is_a_remark(coco, number, told):
    annotations = coco.content['train']['annotations']
    for annotation in annotations[: number - 4]:
        annotation['iscrowd'] = 1
    for annotation in annotations[-4:]:
        annotation['ignore'] = 1
    coco.write()
    report = coco.scan()
    assert report.fatal == []
    assert kinds(report) == ({'annotations that are no objects': 1} if told else {})
    if told:
        assert report.findings[0].found == '9 of 18: 4 with ignore, 5 crowd regions'


FLAGS = {0: ('0', 0.0, False, None, '', 'false', 'No', ' 0 ', nan), 1: ('1', 1.0, True, 'true', 'YES')}


@pytest.mark.parametrize(('said', 'value'), [(said, value) for said, values in FLAGS.items() for value in values])
def test_flags_are_read_in_one_way(coco, said, value):
    """Class table, training and evaluation; mmdet takes the text "0" for a yes and fails with null."""
    for split in ('train', 'val'):
        coco.content[split]['annotations'][0]['iscrowd'] = value
        coco.content[split]['annotations'][1]['ignore'] = value
    coco.write()
    cfg = coco.config()
    train, val = scan_data(cfg, check='off')
    assert [count for _, count in train.per_class.values()] == [6 - said, 6 - said, 6]
    assert [count for _, count in val.per_class.values()] == [2 - said, 2 - said, 2]
    dataset = load(cfg.train_dataloader.dataset)
    instances = [one for i in range(6) for one in dataset.get_data_info(i)['instances']]
    labels = [one['bbox_label'] for one in instances if not one['ignore_flag']]
    assert np.bincount(labels).tolist() == [6 - said, 6 - said, 6]
    metric = METRICS.build(dict(type='vitdense.CocoMetric', ann_file=f'{coco.root}/val.json'))
    metric.dataset_meta = dict(classes=CLASSES)
    truth = GroundTruth.read(metric._coco_api, {1: 0, 2: 1, 3: 2}, False)
    assert sum(one['iscrowd'] for one in truth.objects) == said


@pytest.mark.parametrize('value', ['maybe', 2, -1, 0.5, [1], {}])
def test_flag_that_says_neither_yes_nor_no(coco, value):
    coco.content['train']['annotations'][4]['iscrowd'] = value
    coco.write()
    finding = only(coco.scan())
    assert (finding.kind, finding.fatal) == ('flag that says neither yes nor no', True)
    assert finding.where == 'annotation 5 of image 2 (2.jpg)'
    assert f'iscrowd is {value!r}' in finding.found


def test_flags_as_texts_in_data_sets_that_read_them_otherwise(coco):
    class Own(MMDetCocoDataset):
        pass

    for annotation in coco.content['train']['annotations'][:2]:
        annotation['iscrowd'] = '0'
    coco.write()
    cfg = coco.config(Own)
    reports = scan_data(cfg, ('train',))
    assert [(f.kind, f.fatal) for f in reports[0].findings] == [('flag as a text', True)] * 2
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    dataset = load(cfg.train_dataloader.dataset)
    flags = [one['ignore_flag'] for i in range(6) for one in dataset.get_data_info(i)['instances']]
    assert flags == [0] * 18


def test_whole_numbers_as_floats_and_a_byte_order_mark(coco):
    """As a table library writes ids that met an empty cell, and Windows a text."""
    content = coco.content['train']
    for entry in (*content['images'], *content['annotations'], *content['categories']):
        entry.update({key: float(entry[key]) for key in ('id', 'image_id', 'category_id') if key in entry})
    coco.write()
    path = coco.root / 'train.json'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    report = coco.scan()
    assert (report.findings, report.images) == ([], 6)
    found = instances(load(coco.config().train_dataloader.dataset))
    assert len(found) == 18
    assert {type(image) for image, *_ in found} == {int}
    content['annotations'][0]['image_id'] = 1.5
    coco.write()
    assert only(coco.scan()).kind == 'annotation of an unknown image'


def test_counts_are_those_of_the_data_set(coco):
    content = coco.content['train']
    content['annotations'][0]['iscrowd'] = 1
    content['annotations'][1]['ignore'] = True
    content['annotations'] = [ann for ann in content['annotations'] if ann['image_id'] != 4]
    coco.write()
    changes = dict(filter_cfg=dict(filter_empty_gt=True, min_size=10), indices=3)
    report = coco.scan(**changes)
    dataset = load(coco.config(**changes).train_dataloader.dataset)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    labels = [one['bbox_label'] for info in infos for one in info['instances'] if not one['ignore_flag']]
    assert report.images == len(dataset) == 3
    assert [count for _, count in report.per_class.values()] == np.bincount(labels).tolist() == [2, 2, 3]


def test_wrappers_are_opened(coco):
    cfg = coco.config()
    inner = cfg.train_dataloader.dataset
    other = dict(inner, ann_file='val.json', data_prefix=dict(img='val'))
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, other])
    )
    reports = scan_data(cfg, ('train',))
    prefix = 'train_dataloader.dataset.dataset.datasets'
    assert [(report.key, report.images) for report in reports] == [(f'{prefix}.0', 6), (f'{prefix}.1', 2)]
    coco.content['val']['annotations'][0]['bbox'] = [0, 0, 0, 0]
    coco.write()
    reports = scan_data(cfg, ('train',))
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    datasets = cfg.train_dataloader.dataset.dataset.datasets
    assert datasets[0].ann_file == 'train.json'
    assert len(instances(load(datasets[1]))) == 5


def test_classes_in_the_place_of_their_names_are_known(coco):
    """As Python-style configs have them: the images are opened, and the masks looked at."""
    cut = coco.root / 'train/2.jpg'
    cut.write_bytes(cut.read_bytes()[:200])
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_mask=True)]
    classes = [dict(step, type=TRANSFORMS.get(f'mmdet.{step["type"]}')) for step in pipeline]
    by_name = coco.scan(pipeline=pipeline)
    assert (by_name.opened, kinds(by_name)) == (6, {'faulty mask': 18, 'unreadable image': 1, 'empty data set': 1})
    assert coco.scan(kind=CocoDataset, pipeline=classes).findings == by_name.findings


def test_other_types_are_named_and_left_alone(coco):
    report = coco.scan(kind='MOTChallengeDataset')
    assert (report.note, report.findings) == ('not scanned: type MOTChallengeDataset', [])
    assert 'not local' in coco.scan(backend_args=dict(backend='petrel')).note
    with pytest.raises(KeyError, match='CocoDatset'):
        coco.scan(kind='CocoDatset')
    with pytest.raises(ValueError, match="check is 'some'"):
        coco.scan('some')


def test_check_off_counts_only(coco):
    coco.content['train']['annotations'][0]['bbox'] = [0, 0, 0, 0]
    coco.write()
    report = coco.scan('off')
    assert (report.findings, report.opened, report.note) == ([], 0, 'not checked')
    assert (report.images, report.per_class['square']) == (6, (6, 6))


def test_generated_shapes_are_written_first(tmp_path):
    dataset = dict(type='vitdense.ShapesDataset', data_root=str(tmp_path / 's'), num_train=4, num_val=2, pipeline=LOAD)
    cfg = Config(
        dict(
            default_scope='mmdet',
            train_dataloader=dict(dataset=dict(dataset, split='train')),
            val_dataloader=dict(dataset=dict(dataset, split='val')),
        )
    )
    reports = scan_data(cfg)
    assert [(report.images, report.opened, report.findings) for report in reports] == [(4, 4, []), (2, 2, [])]
    root = ensure_shapes(tmp_path / 's', load(cfg.train_dataloader.dataset).spec)
    content = json.loads((root / 'annotations/instances_train.json').read_text())
    assert sum(count for _, count in reports[0].per_class.values()) == len(content['annotations'])
    content['annotations'][0]['bbox'][2] = 0
    (root / 'annotations/instances_train.json').write_text(json.dumps(content))
    reports = scan_data(cfg)
    drop_findings(cfg, reports, tmp_path / 'clean')
    assert len(instances(load(cfg.train_dataloader.dataset))) == len(content['annotations']) - 1


def test_data_sets_of_users(coco):
    """Another place of the images is found; nobody knows how a method of theirs labels, so order is a remark."""

    class Elsewhere(MMDetCocoDataset):
        def parse_data_info(self, raw_data_info: dict) -> dict:
            info = super().parse_data_info(raw_data_info)
            return dict(info, img_path=info['img_path'].replace('train', 'moved'))

    class ByName(MMDetCocoDataset):
        def load_data_list(self) -> list[dict]:
            return super().load_data_list()

    swapped = dict(metainfo=dict(classes=CLASSES[::-1]))
    finding = only(coco.scan(kind=ByName, **swapped))
    assert (finding.kind, finding.fatal) == ('class order', False)
    (coco.root / 'train').rename(coco.root / 'moved')
    report = coco.scan(kind=Elsewhere)
    assert (report.findings, report.opened, report.dataset) == ([], 6, 'Elsewhere')
    assert only(coco.scan(kind=Elsewhere, **swapped)).fatal
