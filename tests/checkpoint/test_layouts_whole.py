"""Whole models in the layouts of others: what is read of theirs, what is written for them, and what is refused."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from safetensors.torch import load_file, save_file
from support.backbones import assert_maps_close, layout_of
from support.configs import model_of
from support.detectors import metas, padded, randomize_
from torch import Tensor, nn

from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.layouts.family import Layout, State
from vitdense.checkpoint.translate import find_layout, recognise, to_ours, to_theirs

SIZES = [(97, 129), (97, 129)]
KINDS = {'plain': {}, 'refine': dict(with_box_refine=True), 'two-stage': dict(with_box_refine=True, two_stage=True)}
LAYERS = dict(encoder_layers=1, decoder_layers=3)
PARTS = ('weight', 'bias')
SETR = {decoder: f'setr/setr_{decoder}_vit-l_8xb2-160k_ade20k-512x512.py' for decoder in ('naive', 'pup', 'mla')}


def layout(family: str, target: str, name: str = '') -> Layout:
    return next(x for x in FAMILIES[family].layouts if target in x.targets and x.name.endswith(name))


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def shapes_of_release(name: str, extra: str = '') -> dict[str, tuple[int, ...]]:
    released = layout_of(name)
    keys = released['extra_layouts'][extra] if extra else released['keys']
    return {key: tuple(shape) for key, shape, *_ in keys}


def without_counts(state: State) -> State:
    """Without the counts of batches in a backbone, which frozen batch norms do not have."""
    return {key: state[key] for key in state if not re.match(r'backbone\..*num_batches_tracked', key)}


def assert_read_back(state: State, theirs: State, layout: Layout) -> None:
    """What was written is recognised, and read as it was, bit for bit."""
    found = recognise(theirs)
    assert FAMILIES[found[0]].whole
    assert found[1] is layout
    back, dropped = to_ours(theirs, layout)
    assert shapes(back) == shapes(state)
    assert all(torch.equal(back[key], value) for key, value in state.items())
    assert all('conv_seg' in key or 'cls_token' in key for key in dropped)


def full_size(model: ConfigDict) -> State:
    """A different number in each parameter of a model, the same in those that are shared, without memory for them."""
    with torch.device('meta'):
        built = MODELS.build(model)
    values = dict(built.named_parameters(remove_duplicate=False)) | dict(built.named_buffers())
    numbers = {id(value): i for i, value in enumerate(values.values(), 1)}
    return {
        key: torch.tensor(float(numbers[id(values[key])])).expand(value.shape)
        for key, value in built.state_dict().items()
    }


OFFICIAL = {
    'detr_r50': ('detr', 'detr/detr_r50_8xb2-150e_coco.py'),
    'detr_r50_dc5': ('detr', 'detr/detr_r50-dc5_8xb2-500e_coco.py'),
    'deformable_detr_r50': ('deformable_detr', 'deformable_detr/deformable-detr_r50_8xb4-50e_coco.py'),
    'deformable_detr_r50_refine': ('deformable_detr', 'deformable_detr/deformable-detr_refine_r50_8xb4-50e_coco.py'),
    'deformable_detr_r50_two_stage': (
        'deformable_detr',
        'deformable_detr/deformable-detr_refine_two-stage_r50_8xb4-50e_coco.py',
    ),
}


@pytest.mark.parametrize('name', OFFICIAL)
def test_names_and_shapes_of_released_detectors_are_written(name):
    family, leaf = OFFICIAL[name]
    model = model_of(leaf)
    model.bbox_head.num_classes = 91
    state, official = full_size(model), layout(family, 'official')
    assert recognise(state) == (family, None)
    theirs = to_theirs(state, official)
    assert shapes(theirs) == shapes_of_release(name)
    assert_read_back(without_counts(state), theirs, official)


@pytest.mark.parametrize('decoder', SETR)
def test_names_and_shapes_of_released_segmentors_are_written(decoder):
    """Without ``conv_seg``, which the original has and never calls."""
    state = full_size(model_of(SETR[decoder]))
    state |= {key: torch.zeros_like(state[key]) for key in state if re.match(r'auxiliary_head.*conv_seg\.bias', key)}
    official = layout('setr', 'official', 'MLA' if decoder == 'mla' else 'PUP')
    assert recognise(state) == ('setr', None)
    theirs = to_theirs(state, official)
    released = shapes_of_release(f'setr_{decoder}', 'released_512')
    assert shapes(theirs) == {key: shape for key, shape in released.items() if 'conv_seg' not in key}
    assert_read_back(state, theirs, official)
    if decoder == 'mla':
        assert not theirs['backbone.cls_token'].any()
        assert not theirs['backbone.pos_embed'][:, 0].any()


def detector(name: str, **options) -> nn.Module:
    """DETR or Deformable DETR over a ResNet-18, random weights."""
    deformable = name == 'deformable_detr'
    model = model_of('deformable_detr/deformable-detr_r50_8xb4-50e_coco.py' if deformable else OFFICIAL['detr_r50'][1])
    model.backbone.depth = 18
    if deformable:
        model.neck.in_channels = [128, 256, 512]
    else:
        model.bbox_head.in_channels = 512
    model.bbox_head.update(num_queries=20, **LAYERS, **options)
    return randomize_(MODELS.build(model))


def predictions(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits and boxes of each layer."""
    maps = model.backbone(images)
    return list(model.bbox_head(model.neck(maps) if model.with_neck else maps, metas(SIZES)))


def hub(model: nn.Module, folder: Path) -> State:
    model.save_pretrained(folder)
    return load_file(folder / 'model.safetensors')


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['DETR', *KINDS])
def test_detectors_of_transformers_load_what_is_written(kind, tmp_path):
    """Names and shapes are those of a file that transformers writes."""
    family = 'detr' if kind == 'DETR' else 'deformable_detr'
    options = KINDS.get(kind, {})
    ours = detector(family, **options)
    state, theirs = without_counts(ours.state_dict()), layout(family, 'transformers')
    config, build = (
        (transformers.DetrConfig, transformers.DetrForObjectDetection)
        if kind == 'DETR'
        else (transformers.DeformableDetrConfig, transformers.DeformableDetrForObjectDetection)
    )
    backbone = transformers.TimmBackboneConfig(backbone='resnet18', out_indices=[4] if kind == 'DETR' else [2, 3, 4])
    sizes = dict(num_queries=20, num_labels=80, **LAYERS)
    sizes |= dict(two_stage_num_proposals=20) if options.get('two_stage') else {}
    config = config(backbone_config=backbone, **sizes, **options)
    written = to_theirs(ours.state_dict(), theirs)
    expected = shapes(hub(build(config), tmp_path))
    if kind == 'refine':  # transformers ties the classes of all layers, the original only the boxes of no refinement
        expected |= {f'class_embed.{i}.{part}': expected[f'class_embed.0.{part}'] for i in (1, 2) for part in PARTS}
    assert shapes(written) == expected
    assert_read_back(state, written, theirs)
    save_file(
        {key: value.clone() for key, value in written.items()},
        tmp_path / 'model.safetensors',
        metadata=dict(format='pt'),
    )
    peer, told = build.from_pretrained(tmp_path, output_loading_info=True)
    assert not told['missing_keys']
    assert not told['unexpected_keys']
    images = padded(SIZES)
    with torch.no_grad():
        logits, boxes = predictions(ours, images)
        found = peer.eval()(images)
    assert_maps_close([logits[-1], boxes[-1]], [found.logits, found.pred_boxes])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['DETR', *KINDS])
def test_detectors_of_mmdet_load_what_is_written(kind):
    family = 'detr' if kind == 'DETR' else 'deformable_detr'
    infix = {'refine': '-refine', 'two-stage': '-refine-twostage'}.get(kind, '')
    leaf = (
        'detr/detr_r50_8xb2-150e_coco.py'
        if kind == 'DETR'
        else f'deformable_detr/deformable-detr{infix}_r50_16xb2-50e_coco.py'
    )
    cfg = model_of(f'mmdet::{leaf}')
    cfg.backbone.update(depth=18)
    cfg.neck.in_channels = [512] if kind == 'DETR' else [128, 256, 512]
    cfg.num_queries, cfg.encoder.num_layers, cfg.decoder.num_layers = 20, 1, 3
    peer = MODELS.build(cfg).eval()
    ours, theirs = detector(family, **KINDS.get(kind, {})), layout(family, 'mmdet')
    for name, parameter in ours.named_parameters():
        if re.match(r'neck\..*conv\.bias', name):
            parameter.data.zero_()
    written = to_theirs(ours.state_dict(), theirs)
    assert shapes(written) == shapes(peer.state_dict())
    assert_read_back(ours.state_dict(), written, theirs)
    peer.load_state_dict(written)
    images = padded(SIZES)
    with torch.no_grad():
        hidden = peer.forward_transformer(
            peer.extract_feat(images), [DetDataSample(metainfo=meta) for meta in metas(SIZES)]
        )
        assert_maps_close(predictions(ours, images), peer.bbox_head(**hidden))


def as_mmdet_2(key: str, kind: str) -> str:
    """The name that a parameter of mmdet's detectors had before version 3: all but the neck was in the head."""
    renames = [
        (r'^query_embedding\.', 'bbox_head.query_embedding.'),
        (r'^(?=(encoder|decoder)\.)', 'bbox_head.transformer.'),
        (r'\.self_attn\.', '.attentions.0.'),
        (r'\.cross_attn\.', '.attentions.1.'),
        (r'\.ffn\.layers', '.ffns.0.layers'),
        (r'^level_embed$', 'bbox_head.transformer.level_embeds'),
        (r'^memory_trans_fc\.', 'bbox_head.transformer.enc_output.'),
        (r'^memory_trans_norm\.', 'bbox_head.transformer.enc_output_norm.'),
        (r'^(reference_points|pos_trans)_fc\.', r'bbox_head.transformer.\1.'),
        (r'^pos_trans_norm\.', 'bbox_head.transformer.pos_trans_norm.'),
    ]
    if kind == 'DETR':
        renames.append((r'^neck\.convs\.0\.conv\.', 'bbox_head.input_proj.'))
    for old, new in renames:
        key = re.sub(old, new, key)
    return key


@pytest.mark.parametrize('kind', ['DETR', *KINDS])
def test_names_of_mmdet_2_are_read(kind):
    """As ``DETRHead``, its ``Transformer`` and the ``BaseTransformerLayer`` of mmcv 1 had them."""
    family = 'detr' if kind == 'DETR' else 'deformable_detr'
    state = detector(family, **KINDS.get(kind, {})).state_dict()
    state |= {key: torch.zeros_like(state[key]) for key in state if re.match(r'neck\..*conv\.bias', key)}
    written = to_theirs(state, layout(family, 'mmdet'))
    before = {as_mmdet_2(key, kind): value for key, value in written.items()}
    mmdet_2 = next(layout for layout in FAMILIES[family].layouts if layout.name == 'mmdet 2')
    assert_read_back(state, before, mmdet_2)
    if kind == 'DETR':  # and as they were in the year of DETR, by what mmdet 2 itself renames when it loads
        names = {'.attentions.0.': '.self_attn.', '.attentions.1.': '.multihead_attn.', '.ffns.0.': '.ffn.'}
        for new, old in {**names, '.decoder.post_norm.': '.decoder.norm.'}.items():
            before = {key.replace(new, old): value for key, value in before.items()}
        assert_read_back(state, before, mmdet_2)


def test_biases_of_a_neck_have_no_place_in_mmdet():
    state = detector('deformable_detr').state_dict()
    with pytest.raises(ValueError, match=r'neck\.convs\.0\.conv\.bias is not zero, and the mmdet layout has no place'):
        to_theirs(state, layout('deformable_detr', 'mmdet'))


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_heads_are_read_where_a_file_has_them_twice(options):
    """Files of older versions of transformers have the heads of the decoder under both names."""
    state, theirs = detector('deformable_detr', **options).state_dict(), layout('deformable_detr', 'transformers')
    written = to_theirs(state, theirs)
    twice = written | {
        key.replace('bbox_head.', ''): value
        for key, value in state.items()
        if re.match(r'bbox_head\.\w+_embed\.\d', key)
    }
    assert len(twice) > len(written)
    assert_read_back(without_counts(state), twice, theirs)


@pytest.mark.parametrize(
    ('decoder', 'target', 'changed', 'message'),
    [
        ('pup', 'mmseg', 'decode_head.convs.2.conv.bias', 'is not zero, and the mmseg layout has no place for it'),
        ('mla', 'mmseg', 'decode_head.conv_seg.weight', 'is not zero around its middle'),
        (
            'mla',
            'official',
            'auxiliary_head.1.conv_seg.bias',
            'is not zero, and the fudan-zvg/SETR layout has no place',
        ),
        ('mla', 'official', 'backbone.cls_token', 'has no place'),
        ('naive', 'official', 'neck.norm.0.weight', "' does not belong to the fudan-zvg/SETR, naive and PUP layout"),
    ],
)
def test_weights_that_setr_has_no_place_for_are_refused(decoder, target, changed, message):
    state = full_size(model_of(SETR[decoder]))
    state = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}
    theirs = layout('setr', target, 'MLA' if decoder == 'mla' else 'PUP')
    to_theirs(state, theirs)
    state[changed] = torch.ones(state[changed].shape if changed in state else 1)
    with pytest.raises(ValueError, match=re.escape(changed) + f'.*{message}'):
        to_theirs(state, theirs)


VITDET = {
    'Mask R-CNN': 'vitdet/mask-rcnn_vitdet-b_100e_coco.py',
    'Cascade Mask R-CNN': 'vitdet/cascade-mask-rcnn_vitdet-b_100e_coco.py',
}
BUFFERS = ['pixel_mean', 'pixel_std', *(f'proposal_generator.anchor_generator.cell_anchors.{i}' for i in range(5))]


def detectron2_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Of the release; a cascade has three box heads, of which each has one box for all classes, and one mask head."""
    released = shapes_of_release('vitdet_vit_b', 'mask_rcnn_vitdet_b')
    if name == 'Mask R-CNN':
        return released
    staged = {}
    for key, shape in released.items():
        found = re.match(r'(roi_heads\.box_(?:head|predictor)\.)(.*)', key)
        shape = (4, *shape[1:]) if 'bbox_pred' in key else shape
        staged |= {f'{found[1]}{stage}.{found[2]}': shape for stage in range(3)} if found else {key: shape}
    return staged


def vitdet(name: str) -> State:
    """Numbers in the parameters of a full-size detector, of which all mask heads are the same."""
    state = full_size(model_of(VITDET[name]))
    return {key: state[re.sub(r'mask_head\.\d', 'mask_head.0', key)] for key in state}


@pytest.mark.slow
@pytest.mark.parametrize('name', VITDET)
def test_detectors_of_detectron2_and_ours_have_the_same_parameters(name):
    own, expected = vitdet(name), detectron2_shapes(name)
    (detectron2,) = FAMILIES['vitdet_detector'].layouts
    assert recognise(own) == ('vitdet_detector', None)
    written = to_theirs(own, detectron2)
    assert shapes(written) == expected
    assert not written['backbone.net.pos_embed'][:, 0].any()
    assert_read_back(own, written, detectron2)
    released = {key: torch.tensor(float(i)).expand(shape) for i, (key, shape) in enumerate(expected.items())}
    state, dropped = to_ours(released | {key: torch.ones(3) for key in BUFFERS}, detectron2)
    assert shapes(state) == shapes(own)
    assert dropped == BUFFERS


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        ('backbone.blocks.5.attn.rel_pos_w', 'backbone.net.blocks.5.attn.rel_pos_w'),
        ('neck.simfp_2.3.weight', 'backbone.simfp_2.3.weight'),
        ('rpn_head.rpn_conv.1.conv.bias', 'proposal_generator.rpn_head.conv.conv1.bias'),
        ('roi_head.bbox_head.shared_convs.2.ln.weight', 'roi_heads.box_head.conv3.norm.weight'),
        ('roi_head.bbox_head.2.shared_convs.0.conv.weight', 'roi_heads.box_head.2.conv1.weight'),
        ('roi_head.bbox_head.1.fc_reg.bias', 'roi_heads.box_predictor.1.bbox_pred.bias'),
        ('roi_head.mask_head.convs.3.conv.weight', 'roi_heads.mask_head.mask_fcn4.weight'),
        ('roi_head.mask_head.upsample.bias', 'roi_heads.mask_head.deconv.bias'),
    ],
)
def test_parts_of_detectron2_go_to_their_places(ours, theirs):
    (detectron2,) = FAMILIES['vitdet_detector'].layouts
    assert detectron2.to_our_name(theirs) == ours
    assert detectron2.to_their_name(ours) == theirs


def test_position_table_of_a_square_image_is_all_read():
    (detectron2,) = FAMILIES['vitdet_detector'].layouts
    key = 'backbone.net.pos_embed'
    for count, kept in ((197, 196), (196, 196), (5, 4)):
        table = torch.randn(1, count, 2)
        assert torch.equal(to_ours({key: table}, detectron2)[0]['backbone.pos_embed'], table[:, -kept:])


def test_weights_that_detectron2_has_no_place_for_are_refused():
    (detectron2,) = FAMILIES['vitdet_detector'].layouts
    with pytest.raises(ValueError, match=r'pos_embed with 195 entries is not that of a square image'):
        to_theirs({'backbone.pos_embed': torch.ones(1, 195, 2)}, detectron2)
    state = vitdet('Cascade Mask R-CNN')
    state['roi_head.mask_head.1.upsample.bias'] = torch.ones(256)
    with pytest.raises(ValueError, match=r'mask_head\.1\.upsample\.bias is not that of the first stage'):
        to_theirs(state, detectron2)
    with pytest.raises(ValueError, match=r"key 'backbone\.bottom_up\.stem' does not belong to the detectron2 layout"):
        to_ours({'backbone.bottom_up.stem': torch.ones(1)}, detectron2)


def test_anchors_of_a_place_are_in_the_order_of_detectron2():
    """One size for each level, then height over width, as in its anchor_generator.py; the first is at the corner."""
    config = model_of(VITDET['Mask R-CNN']).rpn_head.anchor_generator
    generator = MODELS.build(model_of(VITDET['Mask R-CNN']).rpn_head).prior_generator
    assert generator.strides == [(stride, stride) for stride in config.strides]
    for anchors, size in zip(generator.base_anchors, (32, 64, 128, 256, 512), strict=True):
        sides = [(size / ratio**0.5, size * ratio**0.5) for ratio in (0.5, 1.0, 2.0)]
        corners = torch.tensor([[-width / 2, -height / 2, width / 2, height / 2] for width, height in sides])
        torch.testing.assert_close(anchors, corners)


def test_boxes_and_classes_are_in_the_order_of_detectron2():
    """Background last and deltas class by class, as in its fast_rcnn.py, with its weights (10, 10, 5, 5)."""
    head = MODELS.build(model_of(VITDET['Mask R-CNN']).roi_head.bbox_head)
    logits, deltas = torch.full((2, 81), -9.0), torch.randn(2, 320)
    logits[0, 17], logits[1, 80] = 9.0, 9.0
    dx, dy, dw, dh = deltas[0, 4 * 17 : 4 * 18] / torch.tensor([10.0, 10.0, 5.0, 5.0])
    rois = torch.tensor([[0.0, 40.0, 60.0, 80.0, 140.0]] * 2)
    x, y, width, height = 60 + dx * 40, 100 + dy * 80, 40 * dw.exp(), 80 * dh.exp()
    expected = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    meta = dict(img_shape=(512, 512), scale_factor=(1.0, 1.0))
    test_cfg = ConfigDict(score_thr=0.5, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5)
    (found,) = head.predict_by_feat((rois,), (logits,), (deltas,), [meta], test_cfg)
    assert found.labels.tolist() == [17]
    torch.testing.assert_close(found.bboxes[0], expected)


def test_regions_are_flattened_channels_first():
    """As in box_head.py of detectron2: an entry of the first linear layer is channel, row, column."""
    head = MODELS.build(model_of(VITDET['Mask R-CNN']).roi_head.bbox_head)
    flat = []
    head.shared_fcs[0].register_forward_hook(lambda module, inputs, output: flat.append(inputs[0]))
    with torch.no_grad():
        maps = torch.randn(1, 256, 7, 7)
        head(maps)
        for conv in head.shared_convs:
            maps = conv(maps)
    assert torch.equal(flat[0], maps.flatten(1))


def test_layouts_that_are_only_read_are_not_written():
    assert all(not x.targets for x in FAMILIES['trans2seg'].layouts)
    assert find_layout({'transformer_head.transformer.vit.cls_embed': torch.ones(1)}, 'trans2seg')
