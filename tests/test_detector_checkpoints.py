"""Checkpoints of whole detectors, as published, are loaded by the runner."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from vitdense.checkpoint.detector import COCO_IDS, adapt
from vitdense.engine.fit import check_fit

LAYOUTS = Path(__file__).parent / 'checkpoint_layouts'
CONFIGS = Path(__file__).parents[1] / 'configs'
DETECTORS = {
    'detr_r50': 'detr/detr_r50_8xb2-150e_coco.py',
    'yolos_ti': 'yolos/yolos-ti_8xb2-300e_coco.py',
}


def build(name: str, classes: int = 80):
    cfg = Config.fromfile(CONFIGS / DETECTORS[name])
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None
    cfg.model.bbox_head.num_classes = classes
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


def release(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {key: torch.randn(shape) for key, shape, _ in json.loads((LAYOUTS / f'{name}.json').read_text())['keys']}


def test_ids_are_those_of_coco():
    names = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta['categories']
    assert [i for i, name in enumerate(names) if name not in ('__background__', 'N/A')] == COCO_IDS


@pytest.mark.parametrize('name', DETECTORS)
def test_release_fills_the_detector_of_its_config(name):
    """All of it, with the rows of the 80 classes and of no object."""
    model, state = build(name), release(name)
    checkpoint, lines = adapt({'model': state, 'epoch': 3}, model)
    assert lines[0].startswith('converted from the layout of ')
    assert lines[1:] == ['the 80 classes were taken from the 91 ids of COCO']
    assert check_fit(model, checkpoint, 'a.pth', least=1.0) == 'loaded 100 % of parameters from a.pth'
    model.load_state_dict(checkpoint['state_dict'], strict=False)
    last = model.bbox_head.class_embed if name == 'detr_r50' else model.bbox_head.class_embed.layers[-1]
    released = state['class_embed.bias' if name == 'detr_r50' else 'class_embed.layers.2.bias']
    assert torch.equal(last.bias.data, released[[*COCO_IDS, 91]])
    assert torch.equal(model.bbox_head.bbox_embed.layers[1].weight.data, state['bbox_embed.layers.1.weight'])


@pytest.mark.parametrize('name', DETECTORS)
def test_other_classes_start_afresh(name):
    model, state = build(name, classes=3), release(name)
    fresh = {key: value.clone() for key, value in model.state_dict().items() if 'class_embed' in key}
    checkpoint, lines = adapt({'model': state}, model)
    layer = 'bbox_head.class_embed' + '.layers.2' * (name == 'yolos_ti')
    assert lines[1:] == [f'{layer} starts afresh: 92 logits are in the file, 4 in the model']
    line = check_fit(model, checkpoint, 'a.pth')
    assert line.endswith('missing: bbox_head.*')
    model.load_state_dict(checkpoint['state_dict'], strict=False)
    assert torch.equal(model.state_dict()[f'{layer}.weight'], fresh[f'{layer}.weight'])
    assert torch.equal(model.bbox_head.bbox_embed.layers[2].bias.data, state['bbox_embed.layers.2.bias'])


def test_our_own_checkpoint_stays_as_it_is():
    model = build('yolos_ti', classes=3)
    own = dict(meta=dict(epoch=1), state_dict=model.state_dict(), optimizer={})
    checkpoint, lines = adapt(own, model)
    assert not lines
    assert checkpoint['state_dict'] is own['state_dict']
    assert checkpoint.keys() == own.keys()
    other = build('yolos_ti', classes=5)
    checkpoint, lines = adapt(own, other)
    assert lines == ['bbox_head.class_embed.layers.2 starts afresh: 4 logits are in the file, 6 in the model']


def test_positions_of_another_image_size_are_an_error():
    model = build('yolos_ti', classes=80)
    model.backbone = type(model.backbone)('tiny', img_size=(512, 672))
    with pytest.raises(ValueError, match='pos_embed with 4251 entries'):
        adapt({'model': release('yolos_ti')}, model)


def test_unknown_keys_are_an_error():
    state = release('detr_r50') | {'mask_head.lay1.weight': torch.zeros(1)}
    with pytest.raises(ValueError, match=r"key 'mask_head\.lay1\.weight' does not belong to the facebookresearch/detr"):
        adapt({'model': state}, build('detr_r50'))
