"""Checkpoints of whole detectors, as published, are loaded by the runner."""

import re

import pytest
import torch
from mmengine.registry import MODELS
from support.backbones import layout_of
from support.configs import model_of
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from vitdense.checkpoint.check import check_fit
from vitdense.checkpoint.into_model import adapt
from vitdense.coco_ids import COCO_IDS

DETECTORS = {
    'detr_r50': 'detr/detr_r50_8xb2-150e_coco.py',
    'deformable_detr_r50': 'deformable_detr/deformable-detr_r50_8xb4-50e_coco.py',
    'deformable_detr_r50_refine': 'deformable_detr/deformable-detr_refine_r50_8xb4-50e_coco.py',
    'deformable_detr_r50_two_stage': 'deformable_detr/deformable-detr_refine_two-stage_r50_8xb4-50e_coco.py',
    'yolos_ti': 'yolos/yolos-ti_8xb2-300e_coco.py',
}
CLASS_LAYERS = {
    'detr_r50': ['class_embed'],
    'deformable_detr_r50': [f'class_embed.{layer}' for layer in range(6)],
    'deformable_detr_r50_refine': [f'class_embed.{layer}' for layer in range(6)],
    'deformable_detr_r50_two_stage': [f'class_embed.{layer}' for layer in range(6)],  # the first stage has another
    'yolos_ti': ['class_embed.layers.2'],
}


LAYOUTS = {
    'detr': 'facebookresearch/detr',
    'deformable_detr': 'fundamentalvision/Deformable-DETR',
    'yolos': 'YOLOS release',
}


def build(name: str, classes: int = 80):
    model = model_of(DETECTORS[name])
    model.bbox_head.num_classes = classes
    torch.manual_seed(0)
    return MODELS.build(model)


def release(name: str) -> dict[str, torch.Tensor]:
    """Random values under the names of a released file, the same where names share a tensor."""
    torch.manual_seed(1)
    layout = layout_of(name)
    state = {key: torch.randn(shape) for key, shape, _ in layout['keys']}
    return state | {key: state[first] for first, *others in layout.get('shared', []) for key in others}


def test_ids_are_those_of_coco():
    names = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta['categories']
    assert [i for i, name in enumerate(names) if name not in ('__background__', 'N/A')] == COCO_IDS


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_release_fills_the_detector_of_its_config(name):
    """All of it, with the rows of the 80 classes and of no object."""
    model, state = build(name), release(name)
    checkpoint, changes = adapt({'model': state, 'epoch': 3}, model)
    line = check_fit(model, checkpoint, 'a.pth', purpose='checkpoint', changes=changes)
    source = LAYOUTS[name.partition('_r50')[0].partition('_ti')[0]]
    selected = '; the 80 classes were taken from the 91 ids of COCO'
    assert line == f'loaded 100 % of parameters from a.pth ({source}){selected}'
    model.load_state_dict(checkpoint['state_dict'], strict=False)
    logits = [*COCO_IDS, *range(91, len(state[f'{CLASS_LAYERS[name][0]}.bias']))]
    for key in (f'{layer}.{kind}' for layer in CLASS_LAYERS[name] for kind in ('weight', 'bias')):
        assert torch.equal(model.bbox_head.state_dict()[key], state[key][logits])
    for key in (key for key in state if key.startswith('bbox_embed.')):
        assert torch.equal(model.bbox_head.state_dict()[key], state[key])


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_other_classes_start_afresh(name):
    model, state = build(name, classes=3), release(name)
    fresh = {key: value.clone() for key, value in model.state_dict().items() if 'class_embed' in key}
    checkpoint, changes = adapt({'model': state}, model)
    layers = [f'bbox_head.{layer}' for layer in CLASS_LAYERS[name]]
    found, extra = (91, 0) if name.startswith('deformable') else (92, 1)
    told = 'bbox_head.class_embed.*' if len(layers) > 1 else layers[0]
    reason = f'{told} starts afresh: {found} logits are in the file, {3 + extra} in the model'
    line = check_fit(model, checkpoint, 'a.pth', changes=changes)
    count = 2 if name == 'deformable_detr_r50' else 2 * len(layers)  # all its layers share one
    assert re.fullmatch(rf'loaded 99\.[5-9] % .*, fresh {count} \(bbox_head\.\*\); {re.escape(reason)}', line)
    for purpose in ('checkpoint', '--resume'):
        with pytest.raises(ValueError, match=rf'at least 100 %[\s\S]*{re.escape(reason)}'):
            check_fit(model, checkpoint, 'a.pth', purpose=purpose, changes=changes)
    model.load_state_dict(checkpoint['state_dict'], strict=False)
    for key in (f'{layer}.{kind}' for layer in layers for kind in ('weight', 'bias')):
        assert torch.equal(model.state_dict()[key], fresh[key])
    for key in (key for key in state if key.startswith('bbox_embed.')):
        assert torch.equal(model.bbox_head.state_dict()[key], state[key])


@pytest.mark.slow
@pytest.mark.parametrize('classes', [80, 1, 100])
def test_first_of_two_stages_keeps_its_logit_of_any_object(classes):
    """The release ranks tokens by logit 0, which is no id of COCO, and trains the first stage with label 0 only."""
    name = 'deformable_detr_r50_two_stage'
    model, state = build(name, classes), release(name)
    checkpoint, _ = adapt({'model': state}, model)
    model.load_state_dict(checkpoint['state_dict'], strict=False)
    layer = model.bbox_head.class_embed[6]
    assert torch.equal(layer.weight[0], state['class_embed.6.weight'][0])
    assert torch.equal(layer.bias[0], state['class_embed.6.bias'][0])
    if classes == 1:  # and on to a model with more
        other = build(name, 3)
        state = adapt(dict(state_dict=model.state_dict()), other)[0]['state_dict']
        assert state['bbox_head.class_embed.6.bias'].shape == (3,)
        assert state['bbox_head.class_embed.6.bias'][0] == layer.bias[0]


def test_our_own_checkpoint_stays_as_it_is():
    model = build('yolos_ti', classes=3)
    own = dict(meta=dict(epoch=1), state_dict=model.state_dict(), optimizer={})
    checkpoint, changes = adapt(own, model)
    assert not changes
    assert checkpoint['state_dict'] is own['state_dict']
    assert checkpoint.keys() == own.keys()
    other = build('yolos_ti', classes=5)
    checkpoint, changes = adapt(own, other)
    assert not changes.sources
    assert changes.reasons() == [
        'bbox_head.class_embed.layers.2 starts afresh: 4 logits are in the file, 6 in the model'
    ]


def test_positions_of_another_image_size_are_an_error():
    model = build('yolos_ti', classes=80)
    model.backbone = type(model.backbone)('tiny', img_size=(512, 672))
    with pytest.raises(ValueError, match='pos_embed with 4251 entries'):
        adapt({'model': release('yolos_ti')}, model)


def test_unknown_keys_are_an_error():
    state = release('detr_r50') | {'mask_head.lay1.weight': torch.zeros(1)}
    with pytest.raises(ValueError, match=r"key 'mask_head\.lay1\.weight' does not belong to the facebookresearch/detr"):
        adapt({'model': state}, build('detr_r50'))
