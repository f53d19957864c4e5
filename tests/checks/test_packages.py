"""Packages that parts of a config import only where they are used."""

import sys

import pytest

pytest.importorskip('mmdet')

from mmdet.datasets import BaseDetDataset, LVISV1Dataset
from mmengine.config import Config
from support.scan import CocoFolder, only

from vitdense.checks import Run, packages
from vitdense.compat import requirements
from vitdense.datasets.scan import scan_data

COCO = dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile')])


@pytest.fixture
def without(monkeypatch):
    """Packages that are not installed, whatever is."""
    installed = requirements._installed
    missing = {module for module, _ in requirements.NEEDS.values()}
    monkeypatch.setattr(requirements, '_installed', lambda module: module not in missing and installed(module))


def found(dataset: dict, *metrics: dict) -> list[tuple]:
    cfg = dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset), train_evaluator=list(metrics))
    return [(case.where, case.found, case.remedy) for case in packages.packages(Run(Config(cfg), ('train',)))]


LVIS = 'needs lvis, which is not installed'


@pytest.mark.usefixtures('without')
@pytest.mark.parametrize('kind', ['LVISV1Dataset', 'mmdet.LVISV05Dataset', 'LVISDataset', LVISV1Dataset])
def test_data_set(kind):
    ((where, told, remedy),) = found(dict(COCO, type=kind))
    assert (where, remedy) == ('train_dataloader.dataset', 'pip install lvis')
    assert told.endswith(LVIS)


@pytest.mark.usefixtures('without')
def test_wrapped_data_sets_transforms_and_metrics():
    """Each package once."""
    step = dict(type='RandomApply', transforms=[dict(type='Albu', transforms=[])])
    inner = dict(COCO, type='LVISV1Dataset', pipeline=[*COCO['pipeline'], step])
    dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    cases = found(dataset, dict(type='LVISMetric'), dict(type='CocoPanopticMetric'))
    assert {(where, remedy.removeprefix('pip install ')) for where, _, remedy in cases} == {
        ('train_dataloader.dataset.dataset', 'lvis'),
        ('train_dataloader.dataset.dataset.pipeline.1.transforms.0', 'albumentations'),
        ('train_evaluator.1', 'git+https://github.com/cocodataset/panopticapi.git'),
    }


def test_what_is_installed_is_no_fault(monkeypatch):
    monkeypatch.setattr(requirements, '_installed', lambda module: True)
    assert found(dict(COCO, type='LVISV1Dataset'), dict(type='LVISMetric')) == []


@pytest.mark.usefixtures('without')
def test_what_needs_nothing_is_no_fault():
    assert found(COCO, dict(type='CocoMetric')) == []


class OfPackage(BaseDetDataset):
    """A data set of a user that needs a package, when it is built or when it reads its files."""

    def __init__(self, at_once: bool = False, **kwargs) -> None:
        if at_once:
            import no_package_of_this_name  # noqa: F401
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        import no_package_of_this_name

        return no_package_of_this_name.read(self.ann_file)


@pytest.mark.parametrize('at_once', [False, True])
def test_a_data_set_of_a_user(tmp_path, monkeypatch, at_once):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    dataset = dict(type=OfPackage, at_once=at_once, ann_file='a.json', pipeline=[])
    finding = only(
        scan_data(Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset))), ('train',))[0]
    )
    assert finding.kind == 'package of a data set'
    assert 'no_package_of_this_name' in finding.found
    assert at_once or finding.remedy == 'pip install no_package_of_this_name'


@pytest.mark.usefixtures('without')
def test_the_scan_alone_says_it_as_well(tmp_path, monkeypatch):
    """mmdet's own error is of the annotation file's reading, and names another source."""
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setitem(sys.modules, 'lvis', None)
    report = scan_data(CocoFolder(tmp_path / 'd').config('LVISV1Dataset'), ('train',))[0]
    finding = only(report)
    assert (finding.kind, finding.remedy) == ('package of a data set', 'pip install lvis')
    assert finding.found == f'LVISV1Dataset {LVIS}'
