"""An error of a transform names its image."""

import pytest

pytest.importorskip('mmdet')

from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from support.scan import LOAD, CocoFolder

from vitdense.datasets.named_errors import TransformError
from vitdense.engine.runner import Runner


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
