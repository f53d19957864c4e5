"""LVIS and Open Images: labels that follow a file, class names that come from one, and their evaluation."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.datasets import LVISV1Dataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.functional import mean_ap
from mmengine.config import Config
from mmengine.registry import DefaultScope
from support.open_images import META_KEYS, NAMES, OpenImages
from support.scan import CLASSES, CocoFolder, only

from vitdense.compat.patches import give_float_to_lvis
from vitdense.config.missing_files import check_files
from vitdense.datasets.scan import scan_data
from vitdense.registry import DATASETS, METRICS


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


# --- LVIS ---


@pytest.fixture
def lvis(tmp_path, monkeypatch) -> CocoFolder:
    """Six images in a file of LVIS v1, and a package whose reader is that of COCO: it has the same methods."""
    package = ModuleType('lvis')
    package.LVIS = COCO
    monkeypatch.setitem(sys.modules, 'lvis', package)
    monkeypatch.setattr('vitdense.compat.requirements._installed', lambda module: True)
    folder = CocoFolder(tmp_path / 'd')
    for image in folder.content['train']['images']:
        image['coco_url'] = f'http://images.cocodataset.org/{image.pop("file_name")}'
    folder.write()
    return folder


def of_lvis(lvis: CocoFolder, **changes):
    return scan_data(lvis.config('LVISV1Dataset', **changes), ('train',), 'full')[0]


def test_lvis(lvis):
    report = of_lvis(lvis)
    assert (report.classes, report.images, report.opened, report.findings) == (CLASSES, 6, 6, [])
    assert report.per_class == dict.fromkeys(CLASSES, (6, 6))


@pytest.mark.parametrize(
    ('classes', 'says'),
    [
        (('square', 'circle', 'triangle'), "label 0 is 'square', in the file 'circle'"),
        (('circle', 'triangle'), "2 classes and 3 categories; label 1 is 'triangle', in the file 'square'"),
        (('circle', 'square'), "2 classes and 3 categories; label 2 is none, in the file 'triangle'"),
        (('circle', 'square', 'triangel'), "label 2 is 'triangel', in the file 'triangle'"),
        ((*CLASSES, 'star'), "4 classes and 3 categories; label 3 is 'star', in the file none"),
    ],
)
def test_labels_of_lvis_follow_the_file(lvis, classes, says):
    """Whatever the names are: mmdet takes the place of the category in the file."""
    cfg = lvis.config('LVISV1Dataset', metainfo=dict(classes=classes))
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))
    assert [one['bbox_label'] for one in dataset.get_data_info(0)['instances']] == [0, 1, 2]
    (finding,) = scan_data(cfg, ('train',))[0].fatal
    assert (finding.kind, finding.where) == ('class order', f'{lvis.root}/train.json')
    assert says in finding.found


class Small(LVISV1Dataset):
    """A release whose classes are known."""

    METAINFO = dict(classes=('circle', 'square', 'tri_angle'))


def test_a_release_may_spell_its_names_in_another_way(lvis):
    cfg = lvis.config(Small)
    del cfg.train_dataloader.dataset.metainfo
    finding = only(scan_data(cfg, ('train',))[0])
    assert (finding.kind, finding.fatal) == ('class order', False)


def test_default_classes_of_lvis_are_not_those_of_a_small_file(lvis):
    cfg = lvis.config('LVISV1Dataset')
    del cfg.train_dataloader.dataset.metainfo
    assert '1203 classes and 3 categories' in only(scan_data(cfg, ('train',))[0]).found


def test_entries_of_lvis_that_cannot_be_read_are_told_at_once(lvis):
    for i in (0, 6):
        del lvis.content['train']['annotations'][i]['bbox']
    lvis.write()
    report = of_lvis(lvis)
    assert [(one.kind, one.found, one.leave_out) for one in report.fatal] == [
        ('annotation that cannot be read', "KeyError: 'bbox'", '')
    ] * 2
    assert all("'id': " in one.where for one in report.fatal)


def test_numpy_for_lvis():
    """The package itself is not needed for that."""
    module = ModuleType('lvis.eval')
    module.np = np
    give_float_to_lvis(module)
    assert np.cumsum([1, 2]).astype(module.np.float).dtype == np.float64
    assert module.np.cumsum is np.cumsum
    assert 'float' not in vars(np)


def test_metric_of_lvis(tmp_path):
    """Perfect predictions have an AP of 1, and those of one image of two a recall of a half: 51 of 101 points."""
    pytest.importorskip('lvis')
    folder = CocoFolder(tmp_path)
    content = folder.content['val']
    for image in content['images']:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    for category in content['categories']:
        category['frequency'] = 'f'
    folder.write()
    metric = METRICS.build(dict(type='mmdet.LVISMetric', ann_file=f'{tmp_path}/val.json'))
    metric.dataset_meta = dict(classes=CLASSES)
    samples = []
    for image in content['images']:
        boxes = [one['bbox'] for one in content['annotations'] if one['image_id'] == image['id']]
        corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]).float()
        pred = dict(bboxes=corners, scores=torch.ones(3), labels=torch.arange(3))
        samples.append(dict(img_id=image['id'], ori_shape=(60, 80), pred_instances=pred))
    metric.process({}, samples)
    assert metric.evaluate(2)['lvis/bbox_AP'] == 1
    metric.process({}, samples[:1])
    assert metric.evaluate(1)['lvis/bbox_AP'] == pytest.approx(51 / 101, abs=1e-3)


# --- Open Images ---


@pytest.fixture
def images(tmp_path) -> OpenImages:
    return OpenImages(tmp_path / 'd')


def test_open_images(images):
    report = scan_data(images.config(), ('train',), 'full')[0]
    assert (report.classes, report.images, report.opened, report.findings) == (tuple(NAMES.values()), 3, 3, [])
    assert report.per_class == {'Circle': (3, 3), 'Square': (1, 1), 'Shape': (0, 0)}
    assert scan_data(images.config(), ('train',), 'full')[0].cached


def test_classes_of_the_config_are_not_read(images):
    """Even if what is scanned is known already without them."""
    scan_data(images.config(), ('train',))
    finding = only(scan_data(images.config(metainfo=dict(classes=('Circle', 'Square'))), ('train',))[0])
    assert (finding.kind, finding.fatal) == ('class names', True)
    assert "metainfo.classes is ['Circle', 'Square'], but OpenImagesDataset takes the 3 names of its files" in (
        finding.found
    )
    assert scan_data(images.config(metainfo=dict(classes=tuple(NAMES.values()))), ('train',))[0].findings == []


@pytest.mark.parametrize(
    ('row', 'says'),
    [
        (('3', '/m/z', (0, 1, 0, 1)), 'AssertionError in openimages.py: assert label_id in self.label_id_mapping'),
        (('4', '/m/c', (0, 1, 0, 1)), 'AssertionError in openimages.py: assert len(img_metas) == len(data_list)'),
    ],
)
def test_an_assertion_without_a_message_tells_its_line(images, row, says):
    images.rows.append(row)
    finding = only(scan_data(images.config(), ('train',))[0])
    assert finding.kind == 'annotation file'
    assert says in finding.found


@pytest.mark.parametrize('key', ['label_file', 'hierarchy_file', 'meta_file', 'image_level_ann_file'])
def test_files_beside_the_annotations_are_looked_for(images, key):
    cfg = images.config()
    check_files(cfg, ('train',))
    cfg = images.config(**{key: 'nothing.csv'})
    with pytest.raises(FileNotFoundError, match=f'missing {images.root}/nothing.csv'):
        check_files(cfg, ('train',))


PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs', meta_keys=META_KEYS)]


def evaluated(cfg: Config) -> dict:
    """Metrics of perfect predictions for the validation."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        metric = METRICS.build(dict(type='OpenImagesMetric'))
    metric.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        boxes = torch.tensor([one['bbox'] for one in sample.instances])
        labels = torch.tensor([one['bbox_label'] for one in sample.instances])
        pred = dict(bboxes=boxes, scores=torch.ones(len(boxes)), labels=labels)
        metric.process({}, [dict(sample.to_dict(), pred_instances=pred)])
    return metric.evaluate(len(dataset))


def test_metric_of_open_images(images, monkeypatch):
    """Perfect predictions of an image have an AP of 1 for its classes, and for the class above them; the table names
    them, where mmdet has the names of the release: Tortoise, Container, Magpie.
    """
    told = []
    monkeypatch.setattr(mean_ap, 'print_log', lambda text, **_: told.append(text))
    assert evaluated(images.config('val', PIPELINE)) == {'openimages/AP50': 1, 'openimages/mAP': 1}
    assert [line.split()[1] for line in told[-1].splitlines() if line.endswith('1.000 |')] == [*NAMES.values(), 'mAP']


def test_metric_of_voc_names_the_classes(monkeypatch):
    """In a folder of VOC2007, mmdet's table has the names of its release: aeroplane, bicycle, bird."""
    told = []
    monkeypatch.setattr(mean_ap, 'print_log', lambda text, **_: told.append(text))
    metric = METRICS.build(dict(type='mmdet.VOCMetric', eval_mode='11points'))
    metric.dataset_meta = dict(classes=CLASSES, dataset_type='VOC2007')
    boxes = torch.tensor([[5.0, 5, 30, 40], [40, 5, 60, 40], [5, 45, 30, 55]])
    found = dict(bboxes=boxes, labels=torch.arange(3))
    nothing = dict(bboxes=boxes[:0], labels=torch.arange(0))
    pred = dict(found, scores=torch.ones(3))
    metric.process({}, [dict(gt_instances=found, ignored_instances=nothing, pred_instances=pred)])
    assert metric.evaluate(1)['pascal_voc/mAP'] == 1
    assert [line.split()[1] for line in told[-1].splitlines() if line.endswith('1.000 |')] == [*CLASSES, 'mAP']


def test_challenge_of_open_images(images):
    """Its objects say in another word whether they are groups."""
    names = [[name, text, i] for i, (name, text) in enumerate(NAMES.items(), 1)]
    cfg = images.config('val', PIPELINE, type='OpenImagesChallengeDataset', ann_file='boxes.txt')
    images.write_csv('classes.csv', names)
    (images.root / 'boxes.txt').write_text(
        ''.join(f'{i}.jpg\n-\n2\n1 0.1 0.1 0.5 0.5 0\n2 0.5 0.5 0.9 0.9 {i == 3:d}\n' for i in (1, 2, 3))
    )
    with open(images.root / 'tree.json', 'wb') as file:
        np.save(file, np.eye(4))
    assert evaluated(cfg) == {'openimages/AP50': 1, 'openimages/mAP': 1}
    report = scan_data(cfg, ('val',), 'full')[0]
    assert report.findings == []
    assert report.per_class == {'Circle': (3, 3), 'Square': (3, 3), 'Shape': (0, 0)}
