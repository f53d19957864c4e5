"""Annotation files and image folders that are not there."""

import mmdet.datasets
import pytest
from mmengine.config import Config

from vitdense.config.load import load_config
from vitdense.config.missing_files import check_files
from vitdense.datasets import ShapesDataset


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', r'images/training[\s\S]*ADEChallengeData2016.zip'),
        ('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', r'gtFine/\{train,val\}[\s\S]*cityscapes-dataset\.com'),
        ('fcn/fcn_r50-d8_4xb4-40k_pascal-context-480x480.py', r'SegmentationClassContext[\s\S]*VOC 2010'),
    ],
)
def test_data_of_segmentation_name_tree_and_source(config, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=message + r'[\s\S]*data_root=PATH'):
        check_files(load_config(f'mmseg::{config}'))


def config(kind: str | type) -> Config:
    dataset = dict(type=kind, data_root='data/somewhere', ann_file='train.json', data_prefix=dict(img='train'))
    return Config(dict(train_dataloader=dict(dataset=dataset), val_evaluator=dict(ann_file='data/somewhere/val.json')))


@pytest.mark.parametrize('kind', ['CocoDataset', 'mmdet.CocoDataset', mmdet.datasets.CocoDataset])
def test_a_type_is_known_as_text_and_as_a_class(kind):
    with pytest.raises(FileNotFoundError) as caught:
        check_files(config(kind))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith('train_dataloader.dataset (CocoDataset) is not there: missing data/somewhere/train.json')
    assert '    annotations/instances_train2017.json' in lines


@pytest.mark.parametrize('kind', ['vitdense.ShapesDataset', ShapesDataset])
def test_generated_data_need_not_be_there(kind):
    check_files(config(kind), ('train',))
