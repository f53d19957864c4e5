"""Class names of the config against those of the annotation file."""

import pytest

pytest.importorskip('mmdet')

from support.scan import CLASSES, CocoFolder, build_mmdet, instances, kinds, load, only

from vitdense.datasets.scan import drop_findings, scan_data
from vitdense.findings import RunError


@pytest.fixture
def coco(tmp_path, monkeypatch) -> CocoFolder:
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    return CocoFolder(tmp_path / 'data')


@pytest.mark.parametrize(
    ('classes', 'says'),
    [
        (('circle', 'squre', 'triangle'), ["'squre' (nearest: 'square')", "no class of the config: ['square']"]),
        ((*CLASSES, 'star'), ["not in the file: 'star'"]),
        (('a', 'b', 'c'), ["'a'", "['circle', 'square', 'triangle']"]),
    ],
)
def test_class_names(coco, classes, says):
    report = coco.scan(metainfo=dict(classes=classes))
    finding = next(f for f in report.findings if f.kind == 'class names')
    assert finding.fatal
    assert finding.where == f'{coco.root}/train.json'
    for part in says:
        assert part in finding.found
    assert str(list(classes)) in finding.found
    assert str(list(CLASSES)) in finding.found


def test_part_of_the_classes_is_a_use_that_mmdet_documents(coco):
    finding = only(coco.scan(metainfo=dict(classes=('square',))))
    assert (finding.kind, finding.fatal) == ('category that is no class', False)
    assert finding.found == "['circle', 'triangle'] and with them 12 annotations are left out"


def test_category_of_the_same_name_without_annotations(coco):
    """Exports have a root category; the one that annotations use counts, wherever it stands."""
    for place in (0, 3):
        coco.content['train']['categories'].insert(place, dict(id=90 + place, name='circle'))
    coco.write()
    report = coco.scan()
    assert kinds(report) == {'categories of the same name': 2}
    assert not report.fatal
    assert report.per_class == dict.fromkeys(CLASSES, (6, 6))
    found = instances(load(coco.config().train_dataloader.dataset))
    assert sorted(label for _, label, *_ in found) == [0] * 6 + [1] * 6 + [2] * 6
    theirs = coco.scan(kind='CocoDataset')
    assert [finding.kind for finding in theirs.fatal] == ['categories of the same name'] * 2, 'mmdet shifts all labels'
    coco.content['train']['annotations'][0]['category_id'] = 93
    coco.write()
    assert 'several categories' in only(coco.scan()).found


def test_numbers_as_names(coco):
    for content in coco.content.values():
        for number, category in enumerate(content['categories']):
            category['name'] = number
    coco.write()
    numbers = dict(metainfo=dict(classes=(2, 0, 1)))
    report = coco.scan(**numbers)
    assert report.findings == []
    assert report.per_class == {'2': (6, 6), '0': (6, 6), '1': (6, 6)}
    dataset = load(coco.config(**numbers).train_dataloader.dataset)
    assert dataset.metainfo['classes'] == ('2', '0', '1')
    assert {label for _, label, x, *_ in instances(dataset) if x == 5} == {1}


def test_forgotten_metainfo_is_said(coco):
    finding = coco.scan(metainfo=dict()).findings[0]
    assert finding.kind == 'class names'
    assert 'metainfo=dict(classes=' in finding.found
    assert "'person'" in finding.found
    assert 'and 60 more' in finding.found


def test_classes_that_are_no_list(coco):
    with pytest.raises(ValueError, match=r"the text 'circle', expected a list of names such as \('circle',\)"):
        coco.scan(metainfo=dict(classes='circle'))
    assert "('circle',)" in coco.scan(kind='CocoDataset', metainfo=dict(classes='circle')).findings[0].found
    twice = coco.scan(metainfo=dict(classes=('circle', 'circle'))).findings[0]
    assert 'more than once' in twice.found


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['vitdense.CocoDataset', 'CocoDataset'])
def test_lenient_classes(coco, kind):
    """Labels follow the config whatever was wrong with the names, also in mmdet's class."""
    classes = ('triangle', 'sqare', 'circle')
    cfg = coco.config(kind, metainfo=dict(classes=classes))
    before = coco.snapshot()
    reports = scan_data(cfg, check='full')
    assert 'class names' in kinds(reports[0])
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    for split, images in (('train', 6), ('val', 2)):
        found = instances(load(dict(cfg[f'{split}_dataloader'].dataset)) if kind[0] == 'v' else build_mmdet(cfg, split))
        assert sorted(label for _, label, *_ in found) == [0] * images + [2] * images
        assert all(x == (45 if label == 0 else 5) for _, label, x, *_ in found)
        assert cfg[f'{split}_evaluator'].ann_file == cfg[f'{split}_dataloader'].dataset.ann_file
    assert coco.snapshot() == before


@pytest.mark.slow
def test_order_of_the_categories(coco):
    """Row "labels follow the category order of the json": mmdet's class is wrong in silence, ours is right."""
    classes = ('square', 'circle', 'triangle')
    cfg = coco.config('CocoDataset', metainfo=dict(classes=classes))
    assert {classes[label] for _, label, x, *_ in instances(build_mmdet(cfg, 'train')) if x == 5} == {'square'}, 'wrong'
    reports = scan_data(cfg, ('train',), 'full')
    finding = only(reports[0])
    assert (finding.kind, finding.fatal) == ('class order', True)
    assert str(list(classes)) in finding.found
    assert str(list(CLASSES)) in finding.found
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    assert {classes[label] for _, label, x, *_ in instances(build_mmdet(cfg, 'train')) if x == 5} == {'circle'}

    ours = coco.config(metainfo=dict(classes=classes))
    report = scan_data(ours, ('train',), 'full')[0]
    assert report.findings == []
    assert report.per_class == dict.fromkeys(classes, (6, 6))
    found = instances(load(ours.train_dataloader.dataset))
    assert {classes[label] for _, label, x, *_ in found if x == 5} == {'circle'}


def test_wrong_class_names_in_mmdet(coco):
    """Row "wrong class names": numpy's complaint of the bare stack, and both lists of ours."""
    wrong = dict(metainfo=dict(classes=('kreis', 'quadrat')), filter_cfg=dict(filter_empty_gt=True))
    with pytest.raises(ValueError, match='need at least one array to concatenate'):
        build_mmdet(coco.config(**wrong), 'train')
    cfg = coco.config(**wrong)
    reports = scan_data(cfg)
    assert {'class names', 'empty data set'} <= set(kinds(reports[0]))
    with pytest.raises(RunError, match='empty data set'):
        drop_findings(cfg, reports, coco.root.parent / 'clean')
    assert not (coco.root.parent / 'clean').exists()


def test_numbers_as_names_are_a_fault_where_pycocotools_compares_them(coco):
    for content in coco.content.values():
        for number, category in enumerate(content['categories']):
            category['name'] = number
    coco.write()
    numbers = dict(kind='mmdet.CocoDataset', metainfo=dict(classes=('2', '0', '1')))
    assert kinds(coco.scan(**numbers))['class names'] == 3
    cfg = coco.config(**numbers)
    drop_findings(cfg, scan_data(cfg), coco.root.parent / 'clean')
    ours = coco.config(metainfo=numbers['metainfo']).train_dataloader.dataset
    assert instances(load(cfg.train_dataloader.dataset)) == instances(load(ours))
