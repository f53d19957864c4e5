"""Pictures of the predictions of a test."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from vitdense.engine.hooks import ShowHook

H, W = 40, 60


class Load:
    """Reads an image as a pipeline does."""

    def __call__(self, results: dict) -> dict:
        return dict(results, img=cv2.imread(results['img_path']))


LoadImage = type('LoadImageFromFile', (Load,), {})


def data_set(root: Path) -> SimpleNamespace:
    pipeline = SimpleNamespace(transforms=[LoadImage()])
    meta = dict(classes=('disc', 'slab'), palette=[(200, 0, 0), (0, 0, 200)])
    return SimpleNamespace(pipeline=pipeline, metainfo=meta, data_prefix=dict(img=str(root)))


def picture(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((H, W, 3), 90, np.uint8))
    return str(path)


@pytest.fixture
def show(tmp_path):
    """Draws samples of these data sets; what is in the folder afterwards."""

    def show(samples, dataset) -> list[str]:
        warnings = []
        runner = SimpleNamespace(
            test_dataloader=SimpleNamespace(dataset=dataset), cfg=Config(dict(model={})),
            logger=SimpleNamespace(warning=lambda text, **_: warnings.append(text)),
        )  # fmt: skip
        hook = ShowHook(str(tmp_path / 'shown'))
        hook.before_test_epoch(runner)
        hook.after_test_iter(runner, 0, None, samples)
        assert warnings == []
        folder = tmp_path / 'shown'
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())

    return show


def boxes(path: str) -> DetDataSample:
    instances = InstanceData(
        bboxes=torch.tensor([[5.0, 5, 30, 30]]), labels=torch.tensor([0]), scores=torch.tensor([0.9])
    )
    return DetDataSample(metainfo=dict(img_path=path), pred_instances=instances)


def semantic(path: str) -> SegDataSample:
    return SegDataSample(
        metainfo=dict(img_path=path), pred_sem_seg=PixelData(data=torch.ones(1, H, W, dtype=torch.long))
    )


def panoptic(path: str) -> DetDataSample:
    ids = torch.full((1, H, W), 1 + 3 * 1000)
    return DetDataSample(metainfo=dict(img_path=path), pred_panoptic_seg=PixelData(sem_seg=ids))


def depth(path: str) -> SegDataSample:
    values = torch.linspace(1, 9, W).expand(1, H, W)
    return SegDataSample(metainfo=dict(img_path=path), pred_depth_map=PixelData(data=values))


@pytest.mark.parametrize(('make', 'color'), [(semantic, (45, 45, 145)), (panoptic, (45, 45, 145)), (boxes, None)])
def test_each_kind_of_prediction_is_drawn(make, color, show, tmp_path):
    path = picture(tmp_path / 'data/1.png')
    assert show([make(path)], data_set(tmp_path / 'data')) == ['1.png']
    drawn = np.array(Image.open(tmp_path / 'shown/1.png'))
    assert drawn.shape == (H, W, 3)
    assert (drawn != 90).any()
    if color:
        assert tuple(drawn[20, 30]) == pytest.approx(color, abs=1), 'half grey, half the colour of class 1'


def test_depth_maps(show, tmp_path):
    show([depth(picture(tmp_path / 'data/1.png'))], data_set(tmp_path / 'data'))
    drawn = np.array(Image.open(tmp_path / 'shown/1.png')).astype(int)
    assert drawn[0, 0, 2] > drawn[0, 0, 0], 'near is blue'
    assert drawn[0, -1, 0] > drawn[0, -1, 2], 'far is yellow'


def test_images_of_one_name_in_several_folders(show, tmp_path):
    """Also where the data sets are several, and where the format is one that browsers do not show."""
    names = ['one/img/0.jpg', 'one/img/x/0.jpg', 'two/img/0.jpg', 'two/img/1.tif']
    paths = [picture(tmp_path / 'data' / name) for name in names]
    several = [data_set(tmp_path / f'data/{name}/img') for name in ('one', 'two')]
    wrapper = SimpleNamespace(datasets=several, metainfo=several[0].metainfo)
    assert show([semantic(path) for path in paths], wrapper) == [*names[:3], 'two/img/1.tif.png']
    elsewhere = picture(tmp_path / 'elsewhere/9.jpg')
    assert '9.jpg' in show([semantic(elsewhere)], wrapper)
