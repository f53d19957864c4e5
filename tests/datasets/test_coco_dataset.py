"""``vitdense.CocoDataset``: labels by name, no chatter, an error that says what is wrong."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('mmdet')

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from support.scan import CLASSES, CocoFolder

from vitdense.datasets import CocoDataset, ShapesDataset
from vitdense.registry import DATASETS


@pytest.fixture(scope='module')
def coco(tmp_path_factory) -> CocoFolder:
    return CocoFolder(tmp_path_factory.mktemp('data'))


def build(coco: CocoFolder, kind: str = 'vitdense', classes=CLASSES, **changes) -> MMDetCocoDataset:
    node = dict(ann_file=f'{coco.root}/train.json', data_prefix=dict(img=f'{coco.root}/train'))
    return DATASETS.build(dict(node, type=f'{kind}.CocoDataset', metainfo=dict(classes=classes), **changes))


def all_instances(dataset) -> list[dict]:
    return [one for i in range(len(dataset)) for one in dataset.get_data_info(i)['instances']]


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(classes=st.lists(st.sampled_from([*CLASSES, 'star', 'cross']), min_size=1, unique=True))
def test_labels_follow_the_names(coco, classes):
    """Whatever the order and whatever is missing; the boxes of the file tell the category by their left edge."""
    known = set(classes) & set(CLASSES)
    if not known:
        with pytest.raises(ValueError, match='none of the classes'):
            build(coco, classes=tuple(classes))
        return
    dataset = build(coco, classes=tuple(classes))
    found = all_instances(dataset)
    assert len(found) == 6 * len(known)
    for one in found:
        assert classes[one['bbox_label']] == CLASSES[int(one['bbox'][0] - 5) // 20]
    assert dataset.cat_ids == [CLASSES.index(name) + 1 if name in CLASSES else None for name in classes]


@pytest.mark.slow
def test_same_as_mmdet_where_the_order_is_that_of_the_file(coco):
    changes = dict(filter_cfg=dict(filter_empty_gt=True, min_size=32))
    ours, theirs = build(coco, **changes), build(coco, 'mmdet', **changes)
    assert [ours.get_data_info(i) for i in range(len(ours))] == [theirs.get_data_info(i) for i in range(len(theirs))]


@pytest.mark.slow
def test_nothing_is_printed(coco, capsys):
    build(coco, 'mmdet')
    assert 'loading annotations' in capsys.readouterr().out
    build(coco)
    assert capsys.readouterr().out == ''


def test_class_without_category_is_logged(coco, caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('coco_test')
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        build(coco, classes=('circle', 'star'))
    assert f"{coco.root}/train.json has no category for ['star']" in caplog.text


def test_nothing_left_says_why(coco):
    """mmdet says "need at least one array to concatenate"."""
    with pytest.raises(ValueError, match=r"none of the classes .*\['kreis'\], .*\['circle', 'square', 'triangle'\]"):
        build(coco, classes=('kreis',))
    for kind, says in (('mmdet', 'need at least one array'), ('vitdense', r'no image is left of 6 .* 18 .*min_size')):
        with pytest.raises(ValueError, match=says):
            build(coco, kind, filter_cfg=dict(min_size=1000))
    with pytest.raises(ValueError, match='need at least one array'):
        build(coco, 'mmdet', classes=('kreis',), filter_cfg=dict(filter_empty_gt=True))


def test_classes_have_to_be_a_list(coco):
    with pytest.raises(ValueError, match=r"the text 'circle', expected a list of names such as \('circle',\)"):
        build(coco, classes='circle')


def test_shapes_derive_from_it():
    assert issubclass(ShapesDataset, CocoDataset)
    assert issubclass(CocoDataset, MMDetCocoDataset)
