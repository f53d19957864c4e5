"""Deformable DETR against implementations that others wrote: predictions, losses, and names of parameters."""

import pytest
import torch
import transformers
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from support.backbones import assert_maps_close, layout_of
from support.detectors import build, metas, padded, randomize_
from torch import nn

from vitdense.checkpoint.translate import convert
from vitdense.config.load import load_config
from vitdense.models.heads import DeformableDETRHead
from vitdense.models.heads.deformable_transformer import Proposals
from vitdense.models.set_prediction import Predictions, cxcywh_to_xyxy

OPTIONS = {
    'plain': dict(),
    'refine': dict(with_box_refine=True),
    'two-stage': dict(with_box_refine=True, two_stage=True),
}
OURS = {
    kind: f'deformable_detr/deformable-detr_{infix}r50_8xb4-50e_coco.py'
    for kind, infix in zip(OPTIONS, ('', 'refine_', 'refine_two-stage_'), strict=True)
}
MMDET = {
    kind: f'mmdet::deformable_detr/deformable-detr{infix}_r50_16xb2-50e_coco.py'
    for kind, infix in zip(OPTIONS, ('', '-refine', '-refine-twostage'), strict=True)
}
RELEASES = {
    'plain': ('deformable_detr_r50', 40_069_665),
    'refine': ('deformable_detr_r50_refine', 40_849_660),
    'two-stage': ('deformable_detr_r50_two_stage', 41_181_529),
}
PADDED = [(250, 310), (203, 170)]


@pytest.mark.slow
@pytest.mark.parametrize('kind', OPTIONS)
def test_equals_transformers_in_all_decoder_layers(kind):
    options = OPTIONS[kind]
    queries = 100 if options.get('two_stage') else 300  # few enough that theirs takes no proposal out of the image
    options = dict(num_queries=queries, two_stage_num_proposals=queries, **options)
    config = transformers.DeformableDetrConfig(num_labels=80, auxiliary_loss=True, **options)
    reference = randomize_(transformers.DeformableDetrForObjectDetection(config))
    ours = build(OURS[kind], num_queries=queries)
    state, dropped = convert(reference.state_dict(), 'deformable_detr')
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith('model.decoder.') for key in dropped)
    assert all(key.endswith('num_batches_tracked') for key in missing)
    images = padded(PADDED)
    mask = torch.stack([(image != 0).any(0) for image in images]).long()
    labels = [dict(class_labels=torch.tensor([3]), boxes=torch.tensor([[0.5, 0.5, 0.2, 0.2]]))] * 2
    with torch.no_grad():
        theirs = reference(images, mask, labels=labels)  # without labels only of the last layer
        mine, proposals = ours.bbox_head.run(ours.neck(ours.backbone(images)), metas(PADDED))
    assert mine.logits.shape == (6, 2, queries, 80)
    assert_maps_close([x[-1] for x in mine], [theirs.logits, theirs.pred_boxes])
    for layer, outputs in enumerate(theirs.auxiliary_outputs):
        assert_maps_close([x[layer] for x in mine], [outputs['logits'], outputs['pred_boxes']])
    if proposals is not None:
        inside = ~theirs.enc_outputs_coord_logits.isinf().any(2)
        assert_maps_close([proposals.logits], [theirs.enc_outputs_class])
        assert_maps_close([proposals.boxes], [theirs.enc_outputs_coord_logits.sigmoid()])
        assert inside.gather(1, proposals.best).all()


@pytest.mark.slow
@pytest.mark.parametrize('kind', OPTIONS)
def test_equals_mmdet_in_all_decoder_layers(kind):
    """Predictions, and gradients of all parameters of the head: a layer does not learn from the boxes of the next."""
    cfg = load_config(MMDET[kind])
    cfg.model.backbone.init_cfg = None
    cfg.model.num_queries = 30
    cfg.model.encoder.num_layers, cfg.model.decoder.num_layers = 2, 3
    init_default_scope('mmdet')
    reference = randomize_(MODELS.build(cfg.model))
    ours = build(OURS[kind], num_queries=30, encoder_layers=2, decoder_layers=3)
    state, dropped = convert(reference.state_dict(), 'deformable_detr')
    ours.load_state_dict(state)
    assert not dropped
    reference.training = True  # of the detector only: it then returns the first stage as well
    for sizes in ([(97, 129), (97, 129)], [(125, 155), (101, 85)]):
        height, width = metas(sizes)[0]['batch_input_shape']
        maps = [
            torch.randn(2, channels, -(-height // stride), -(-width // stride))
            for channels, stride in ((512, 8), (1024, 16), (2048, 32))
        ]
        hidden = reference.forward_transformer(
            reference.neck(maps), [DetDataSample(metainfo=meta) for meta in metas(sizes)]
        )
        first = hidden.pop('enc_outputs_class'), hidden.pop('enc_outputs_coord')
        theirs = reference.bbox_head(**hidden) + (first if kind == 'two-stage' else ())
        mine, proposals = ours.bbox_head.run(ours.neck(maps), metas(sizes))
        mine = (*mine, *proposals[:2]) if kind == 'two-stage' else mine
        assert mine[0].shape == (3, 2, 30, 80)
        assert_maps_close(mine, theirs)
    for outputs in (mine, theirs):
        sum(x.square().mean() for x in outputs).backward()
    expected = {name: p.grad for name, p in reference.named_parameters(remove_duplicate=False) if p.grad is not None}
    gradients = convert(expected, 'deformable_detr')[0]
    for name, parameter in ours.bbox_head.named_parameters():
        gradient = gradients[f'bbox_head.{name}']
        assert (parameter.grad - gradient).abs().max() <= 1e-4 * gradient.abs().max(), name


def random_boxes(*shape: int) -> torch.Tensor:
    """Boxes (..., 4), cxcywh, within the image."""
    sizes = 0.05 + 0.4 * torch.rand(*shape, 2)
    return torch.cat([sizes / 2 + (1 - sizes) * torch.rand(*shape, 2), sizes], dim=-1)


@pytest.mark.parametrize('counts', [(3, 1), (2, 0, 4), (0, 0), (9, 2)], ids=str)
@pytest.mark.parametrize('two_stage', [False, True], ids=['one stage', 'two stages'])
def test_losses_and_gradients_equal_those_of_mmdet(counts, two_stage, monkeypatch):
    """Of the same predictions; the last tokens of the first stage are at the border, their boxes at infinity."""
    torch.manual_seed(0)
    hw, images, classes, tokens = (120, 200), len(counts), 4, 20
    logits, boxes = torch.randn(3, images, 7, classes) - 3, random_boxes(3, images, 7)
    first_logits, first_boxes = torch.randn(images, tokens, classes) - 3, random_boxes(images, tokens)
    first_boxes[:, -4:] = 1.0
    outputs = [logits, boxes, *((first_logits, first_boxes) if two_stage else ())]
    for x in outputs:
        x.requires_grad_()
    truths = [
        InstanceData(
            labels=torch.randint(classes, (n,)),
            bboxes=cxcywh_to_xyxy(random_boxes(n)) * torch.tensor([hw[1], hw[0]] * 2),
        )
        for n in counts
    ]
    samples = [DetDataSample(metainfo=dict(img_shape=hw), gt_instances=truth) for truth in truths]
    options = dict(with_box_refine=True, two_stage=True) if two_stage else {}
    ours = DeformableDETRHead(classes, 8, num_heads=2, encoder_layers=1, decoder_layers=3, **options)
    proposals = Proposals(first_logits, first_boxes, torch.arange(7).expand(images, -1)) if two_stage else None
    monkeypatch.setattr(ours, 'run', lambda *_: (Predictions(logits, boxes), proposals))
    cfg = load_config(MMDET['plain']).model
    init_default_scope('mmdet')
    theirs = MODELS.build(dict(cfg.bbox_head, num_classes=classes, embed_dims=8, train_cfg=cfg.train_cfg))
    first = (first_logits, first_boxes) if two_stage else (None, None)
    found = ours.loss([], samples)
    expected = theirs.loss_by_feat(logits, boxes, *first, truths, [dict(img_shape=hw)] * images)
    assert found.keys() == expected.keys()
    assert ('enc_loss_iou' in found) == two_stage
    for name, loss in expected.items():
        assert abs(found[name] - loss) <= 1e-5, name
    gradients = [torch.autograd.grad(sum(losses.values()), outputs) for losses in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() <= 1e-5


@pytest.mark.parametrize('kind', OPTIONS)
def test_names_and_shapes_equal_the_release(kind):
    name, parameters = RELEASES[kind]
    layout = layout_of(name)
    with torch.device('meta'):
        model = build(OURS[kind], num_classes=91)
        state, dropped = convert(
            {'model': {key: torch.empty(shape) for key, shape, _ in layout['keys']}}, 'deformable_detr'
        )
    own = {key: value.shape for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')}
    assert {key: value.shape for key, value in state.items()} == own
    assert all(key.startswith('transformer.decoder.') for key in dropped)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]  # buffers in the release
    sizes = {parameter: parameter.numel() for parameter in model.parameters()}
    assert sum(sizes.values()) - sum(sizes[p] for norm in norms for p in norm.parameters()) == parameters
