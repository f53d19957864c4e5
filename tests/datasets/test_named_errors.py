"""An error of a transform names its image."""

import numpy as np
import pytest

pytest.importorskip('mmdet')

from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from support.scan import LOAD, CocoFolder
from support.seg import LOAD as SEG_LOAD
from support.seg import SegFolder

from vitdense.datasets.named_errors import TransformError, pipelines
from vitdense.engine.runner import Runner
from vitdense.registry import DATASETS


def loader(coco: CocoFolder, wrap=lambda node: node, workers: int = 0, steps=(dict(type='Resize', scale=(0, 0)),)):
    node = coco.config(pipeline=[*LOAD, *steps]).train_dataloader.dataset
    settings = dict(batch_size=1, num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=False))
    with DefaultScope.overwrite_default_scope('mmdet'):
        return Runner.build_dataloader(
            ConfigDict(dataset=wrap(node), collate_fn=dict(type='pseudo_collate'), **settings)
        )


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('wrapped', [False, True])
def test_error_has_the_image_and_the_transform(tmp_path, workers, wrapped):
    coco = CocoFolder(tmp_path)

    def wrap(node):
        return (
            dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[node]))
            if wrapped
            else node
        )

    with pytest.raises(TransformError, match=r'train/1\.jpg: Resize failed: error: .*resize'):
        next(iter(loader(coco, wrap, workers)))


@pytest.mark.slow
def test_good_pipelines_are_unchanged(tmp_path):
    coco = CocoFolder(tmp_path)
    plain = loader(coco, steps=())
    assert [type(step).__name__ for step in plain.dataset.pipeline.transforms] == [step['type'] for step in LOAD]
    assert next(iter(plain))['img'][0].shape == (60, 80, 3)


@pytest.mark.parametrize('late', [False, True])  # maps are loaded before or after their image is resized
@pytest.mark.parametrize(
    ('spoil', 'said'),
    [
        (
            lambda map_: np.zeros((30, 80), np.uint8),
            r'ValueError: the map has 30 x 80 values .*, the image 60 x 80 pixels',
        ),
        (lambda map_: np.zeros((60, 80, 3), np.uint8), r'ValueError: the map has 60 x 80 x 3 values'),
        (lambda map_: None, r'\(map \S+/maps/1\.png\): UnidentifiedImageError'),
        (lambda map_: map_, ''),
    ],
)
def test_a_map_that_changed_is_named(spoil, said, late, tmp_path):
    seg = SegFolder(tmp_path)
    map_ = spoil(np.zeros((60, 80), np.uint8))
    seg.map(1).write_bytes(b'') if map_ is None else seg.save_map(1, map_)
    image, labels, resize = *SEG_LOAD, dict(type='Resize', scale=(40, 40))
    node = seg.config([image, resize, labels] if late else [image, labels, resize]).train_dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmseg'):
        [pipeline] = pipelines(dataset := DATASETS.build(node))
    for lenient in (False, True):
        pipeline.lenient = lenient
        if not said:
            assert dataset[1]['gt_seg_map'].ndim == 2
        elif lenient:
            assert dataset.prepare_data(1) is None
        else:
            with pytest.raises(TransformError, match=rf'/images/1\.jpg: LoadAnnotations failed.*{said}'):
                dataset[1]
