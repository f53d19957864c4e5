"""DETR against implementations that others wrote, with the same weights."""

import pytest
import torch
import transformers
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.registry import MODELS, init_default_scope
from support.backbones import TOLERANCE, layout_of
from support.detectors import build, copies_to_host, metas, on_pvt, padded, randomize_
from torch import nn

from vitdense.checkpoint.translate import convert
from vitdense.config.load import load_config
from vitdense.models.heads import DETRHead, query_head
from vitdense.models.heads.detr_transformer import Encoder, EncoderLayer
from vitdense.models.set_prediction import cxcywh_to_xyxy


def outputs_of_layers(decoder, call) -> torch.Tensor:
    """Normed output (T, B, Q, C) of each layer; with ``auxiliary_loss`` its norm would go into the next layer."""
    outputs = []
    hooks = [layer.register_forward_hook(lambda *args: outputs.append(args[2])) for layer in decoder.layers]
    call()
    for hook in hooks:
        hook.remove()
    return decoder.layernorm(torch.stack(outputs))


@pytest.mark.slow
@pytest.mark.parametrize('sizes', [[(250, 310), (203, 170)], [(97, 129), (97, 129)]], ids=['padded', 'alike'])
@pytest.mark.parametrize('dilation', [False, True], ids=['R50', 'R50-DC5'])
def test_equals_transformers_in_all_decoder_layers(dilation, sizes):
    config = transformers.DetrConfig(dilation=dilation, num_labels=80)
    reference = randomize_(transformers.DetrForObjectDetection(config))
    ours = build(f'detr/detr_r50{"-dc5" if dilation else ""}_8xb2-500e_coco.py')
    state, dropped = convert(reference.state_dict(), 'detr')
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert not dropped
    assert all(key.endswith('num_batches_tracked') for key in missing)
    images = padded(sizes)
    mask = torch.stack([(image != 0).any(0) for image in images]).long()
    with torch.no_grad():
        hidden = outputs_of_layers(reference.model.decoder, lambda: reference.model(images, mask))
        theirs = reference.class_labels_classifier(hidden), reference.bbox_predictor(hidden).sigmoid()
        mine = ours.bbox_head(ours.backbone(images), metas(sizes))
    assert mine.logits.shape == (6, 2, 100, 81)
    for a, b in zip(mine, theirs, strict=True):
        assert b.std() > 1e-2
        assert (a - b).abs().max() <= TOLERANCE


@pytest.mark.slow
def test_equals_mmdet_in_all_decoder_layers():
    cfg = load_config('mmdet::detr/detr_r50_8xb2-150e_coco.py')
    cfg.model.backbone.init_cfg = None
    init_default_scope('mmdet')
    reference = randomize_(MODELS.build(cfg.model))
    ours = build('detr/detr_r50_8xb2-150e_coco.py')
    state, dropped = convert(reference.state_dict(), 'detr')
    ours.load_state_dict(state)
    assert not dropped
    sizes = [(250, 310), (203, 170)]
    samples = [DetDataSample(metainfo=meta) for meta in metas(sizes)]
    with torch.no_grad():
        feats = ours.backbone(padded(sizes))
        hidden = reference.forward_transformer(reference.neck(feats), samples)
        theirs = reference.bbox_head(**hidden)
        for a, b in zip(ours.bbox_head(feats, metas(sizes)), theirs, strict=True):
            assert b.std() > 1e-2
            assert (a - b).abs().max() <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize('name', ['detr_r50', 'detr_r50_dc5'])
def test_names_and_shapes_equal_the_release(name):
    keys = layout_of(name)['keys']
    state, dropped = convert({'model': {key: torch.empty(shape) for key, shape, _ in keys}}, 'detr')
    model = build(f'detr/{name.replace("_dc5", "-dc5")}_8xb2-500e_coco.py', num_classes=91)
    own = {key: value.shape for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')}
    assert not dropped
    assert {key: value.shape for key, value in state.items()} == own
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 41_302_368


def small_head(**kwargs) -> DETRHead:
    torch.manual_seed(0)
    sizes = dict(channels=32, num_queries=9, num_heads=4, encoder_layers=2, decoder_layers=3, feedforward_channels=64)
    return DETRHead(5, 12, **{**sizes, **kwargs})


def test_an_image_alone_is_detected_as_in_a_padded_batch():
    head = randomize_(small_head())
    maps = torch.randn(2, 12, 11, 14)
    sizes = [(352, 448), (224, 320)]
    with torch.no_grad():
        together = head([maps], metas(sizes))
        alone = head([maps[1:, :, :7, :10]], metas(sizes[1:]))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[:, 1:], b, atol=1e-5, rtol=0)
    assert (together.logits[:, 0] - together.logits[:, 1]).abs().max() > 0.1


def test_without_metas_there_is_no_padding():
    head = randomize_(small_head())
    maps = torch.randn(2, 12, 5, 7)
    with torch.no_grad():
        for a, b in zip(head([maps]), head([maps], metas([(160, 224)] * 2)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize('with_cp', [False, 'light', True])
def test_every_parameter_gets_a_gradient(with_cp):
    head = randomize_(small_head(with_cp=with_cp, dropout=0.0)).train()
    logits, boxes = head([torch.randn(2, 12, 5, 7)], metas([(160, 224), (96, 100)]))
    (logits.square().sum() + boxes.square().sum()).backward()
    unused = [name for name, p in head.named_parameters() if p.grad.abs().max() < 1e-5]
    assert unused == ['transformer.decoder.layers.0.self_attn.in_proj_weight']  # the first values are those of zeros


def test_checkpointing_changes_no_gradient():
    gradients = []
    for with_cp in (False, 'light', True):
        head = small_head(with_cp=with_cp).train()
        torch.manual_seed(2)
        head([torch.ones(2, 12, 5, 7)]).logits.square().sum().backward()
        gradients.append([p.grad for p in head.transformer.parameters()])
    for a, b, c in zip(*gradients, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=0, atol=1e-5)


def test_light_checkpointing_draws_the_same_numbers_again_and_projects_the_feed_forward_once():
    layer = EncoderLayer(8, 2, 16, dropout=0.5).train()
    calls, gradients = [], []
    layer.linear2.register_forward_hook(lambda *_: calls.append('linear2'))
    for with_cp in (False, 'light'):
        layer.zero_grad()
        torch.manual_seed(2)
        Encoder([layer], with_cp).train()(torch.ones(2, 5, 8), torch.ones(2, 5, 8), None).square().sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert len(calls) == 2


def small_detector(**head) -> nn.Module:
    sizes = dict(channels=32, num_queries=9, num_heads=4, encoder_layers=1, decoder_layers=2, feedforward_channels=64)
    return on_pvt((2,), bbox_head=dict(type='vitdense.DETRHead', num_classes=5, in_channels=160, **{**sizes, **head}))


def batch(model: nn.Module, num_items, training: bool) -> dict:
    inputs = demo_mm_inputs(2, [(3, 64, 96), (3, 75, 50)], num_items=num_items, num_classes=5)
    for sample in inputs['data_samples']:
        sample.set_metainfo(dict(ori_shape=(150, 192), scale_factor=(0.5, 0.5)))
    return model.data_preprocessor(inputs, training)


def test_images_without_objects_are_trained_on():
    model = small_detector().train()
    losses = model(**batch(model, [0, 0], True), mode='loss')
    assert set(losses) == {f'{prefix}loss_{name}' for prefix in ('', 'd0.') for name in ('cls', 'bbox', 'iou')}
    assert losses['loss_cls'] > 0
    assert losses['loss_bbox'] == losses['loss_iou'] == 0
    model.parse_losses(losses)[0].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_without_auxiliary_losses_only_the_last_layer_is_trained_on():
    model = small_detector(aux_loss=False).train()
    assert set(model(**batch(model, [2, 1], True), mode='loss')) == {'loss_cls', 'loss_bbox', 'loss_iou'}


def test_more_objects_than_queries_are_told_once(monkeypatch):
    told = []
    monkeypatch.setattr(query_head, 'print_log', lambda message, *_: told.append(message))
    model = small_detector(num_queries=3).train()
    for _ in range(2):
        losses = model(**batch(model, [2, 5], True), mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    assert len(told) == 1
    assert 'has 5 objects, the model has 3 queries' in told[0]


def test_predictions_are_in_pixels_of_the_image_asked_for():
    model = small_detector().eval()
    data = batch(model, [2, 1], False)
    with torch.no_grad():
        feats = model.extract_feat(data['inputs'])
        scaled, original = (model.bbox_head.predict(feats, data['data_samples'], rescale) for rescale in (False, True))
        boxes = model.bbox_head(feats, [sample.metainfo for sample in data['data_samples']]).boxes[-1]
    for small, large, sample, queries in zip(scaled, original, data['data_samples'], boxes, strict=True):
        height, width = sample.img_shape
        torch.testing.assert_close(large.bboxes, 2 * small.bboxes)
        assert (small.bboxes >= 0).all()
        assert (small.bboxes <= torch.tensor([width, height] * 2)).all()
        corners = cxcywh_to_xyxy(queries).clamp(0, 1) * torch.tensor([width, height] * 2)
        assert {tuple(box) for box in corners.tolist()} == {tuple(box) for box in small.bboxes.tolist()}
        assert (small.scores.diff() <= 0).all()


def test_a_step_copies_to_the_host_twice_at_most(monkeypatch):
    model = small_detector().train()
    data = batch(model, [2, 3], True)
    copies = copies_to_host(monkeypatch)
    losses = model(**data, mode='loss')
    sum(losses.values()).backward()
    assert copies == ['cpu']


@pytest.mark.slow
@pytest.mark.parametrize('part', ['encoder', 'decoder'])
def test_compiles_without_graph_breaks(part):
    transformer = small_head().transformer.eval()
    valid = torch.rand(2, 1, 1, 35) > 0.2
    x, pos, queries = torch.randn(2, 35, 32), torch.randn(2, 35, 32), torch.randn(2, 9, 32)
    inputs = (x, pos, valid) if part == 'encoder' else (queries, x + pos, x, valid)
    module = getattr(transformer, part)
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend='eager')(*inputs)
        torch.testing.assert_close(compiled, module(*inputs))


def test_bfloat16_autocast_trains():
    head = small_head(dropout=0.0).train()
    maps = torch.randn(2, 12, 5, 7)
    exact = head([maps])
    with torch.autocast('cpu', torch.bfloat16):
        half = head([maps])
    assert half.boxes.dtype == torch.float32
    assert (half.logits.float() - exact.logits).norm() / exact.logits.norm() < 0.05
    (half.logits.float().square().sum() + half.boxes.square().sum()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(channels=30), ValueError, 'multiple of num_heads 4'),
        (dict(num_heads=2, channels=34), ValueError, 'of 4 for the position'),
        (dict(num_querys=9), TypeError, 'num_querys'),
        (dict(test_cfg=dict(max_per_image=5)), TypeError, "unknown setting of test_cfg 'max_per_image'.*'max_per_img'"),
        (dict(train_cfg=dict(assigner=1)), TypeError, "unknown setting of train_cfg 'assigner'"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        small_head(**kwargs)
