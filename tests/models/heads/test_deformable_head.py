"""The head of Deformable DETR by itself: padding, two stages, initialisation, training, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.structures import InstanceData
from support.backbones import products
from support.detectors import copies_to_host, metas, on_pvt, randomize_
from torch import nn

from vitdense.models.heads import DeformableDETRHead
from vitdense.ops.ms_deform_attn import MSDeformAttn

CHANNELS, CLASSES, QUERIES = 32, 5, 9
STRIDES = (8, 16)
SMALL = dict(
    num_levels=2, num_queries=QUERIES, num_heads=4, encoder_layers=2, decoder_layers=3, feedforward_channels=64
)
OPTIONS = {
    'plain': dict(),
    'refine': dict(with_box_refine=True),
    'two-stage': dict(with_box_refine=True, two_stage=True),
}
each_kind = pytest.mark.parametrize('kind', OPTIONS)


def small_head(kind: str = 'plain', **kwargs) -> DeformableDETRHead:
    torch.manual_seed(0)
    return DeformableDETRHead(CLASSES, CHANNELS, **{**SMALL, **OPTIONS[kind], **kwargs})


def maps_of(hw, images: int = 2, strides=STRIDES) -> list[torch.Tensor]:
    """Random maps (B, C, H, W) of images that are padded to ``hw``."""
    torch.manual_seed(3)
    return [torch.randn(images, CHANNELS, *(-(-side // stride) for side in hw)) for stride in strides]


def samples_of(sizes, counts) -> list[DetDataSample]:
    torch.manual_seed(4)
    return [
        DetDataSample(
            metainfo=meta,
            gt_instances=InstanceData(
                labels=torch.randint(CLASSES, (n,)), bboxes=torch.rand(n, 4) * 20 + torch.tensor([0, 0, 20, 20])
            ),
        )
        for meta, n in zip(metas(sizes), counts, strict=True)
    ]


cells = st.tuples(st.integers(1, 4), st.integers(1, 4))


@pytest.mark.slow
@each_kind
@settings(max_examples=15, deadline=None)
@given(small=cells, more=cells)
def test_an_image_alone_is_detected_as_in_a_padded_batch(kind, small, more):
    """Sides are multiples of the last stride, so that the maps of the image alone are parts of those of the batch."""
    head = randomize_(small_head(kind, num_queries=5))
    sizes = [tuple(16 * (a + b) for a, b in zip(small, more, strict=True)), tuple(16 * a for a in small)]
    maps = maps_of(sizes[0])
    crops = [
        x[1:, :, : sizes[1][0] // stride, : sizes[1][1] // stride] for x, stride in zip(maps, STRIDES, strict=True)
    ]
    with torch.no_grad():
        together = head(maps, metas(sizes))
        alone = head(crops, metas(sizes[1:]))
    assert alone.logits.shape == (3, 1, 5, CLASSES)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[:, 1:], b, atol=1e-5, rtol=0)
    assert (together.logits[:, 0] - together.logits[:, 1]).abs().max() > 0.05


@each_kind
def test_without_metas_there_is_no_padding(kind):
    head = randomize_(small_head(kind))
    maps = maps_of((40, 56))
    with torch.no_grad():
        for a, b in zip(head(maps), head(maps, metas([(40, 56)] * 2)), strict=True):
            assert torch.equal(a, b)


def proposals_of(head: DeformableDETRHead, sizes, strides=STRIDES):
    with torch.no_grad():
        return head.run(maps_of(metas(sizes)[0]['batch_input_shape'], len(sizes), strides), metas(sizes))[1]


def test_best_tokens_of_the_first_class_become_queries():
    head = randomize_(small_head('two-stage'))
    proposals = proposals_of(head, [(40, 56)])
    assert proposals.logits.shape == (1, 35 + 12, CLASSES)
    assert torch.equal(proposals.best, proposals.logits[..., 0].topk(QUERIES).indices)
    assert not torch.equal(proposals.best, proposals.logits[..., 1].topk(QUERIES).indices)


def test_equal_tokens_are_taken_in_order_and_padding_last():
    head = randomize_(small_head('two-stage', num_queries=1000))
    nn.init.zeros_(head.class_embed[-1].weight)
    best = proposals_of(head, [(40, 56), (24, 40)]).best
    inside = [row * 7 + column for row in range(3) for column in range(5)]
    inside += [35 + row * 4 + column for row in range(2) for column in range(3)]
    assert best[0].tolist() == list(range(47))
    assert best[1].tolist() == inside + [i for i in range(47) if i not in inside]


def test_tokens_at_the_border_come_after_all_others():
    """With 60 columns the first and the last are nearer to the border than 1 %; they share one logit."""
    head = randomize_(small_head('two-stage', num_queries=1000))
    logits, boxes, best = (x[0] for x in proposals_of(head, [(16, 480)]))
    border = [0, 59, 60, 119]
    assert (boxes[border] == 1).all()
    assert (logits[border] == logits[0]).all()
    assert (logits[:, 0] < logits[0, 0]).sum() > 10
    assert best[-4:].tolist() == border
    assert (boxes[best[:-4]] < 1).all()


def test_levels_whose_proposals_exceed_the_image_come_last():
    head = randomize_(small_head('two-stage', num_levels=6, num_queries=1000))
    strides = (8, 8, 16, 16, 32, 32)  # a side of 0.05 at the first, of 1.6 at the last
    proposals = proposals_of(head, [(32, 32)], strides)
    assert proposals.best[0, -1].item() == 41
    assert all(x.isfinite().all() for x in proposals[:2])


@pytest.mark.parametrize('sizes', [[(16, 480)] * 2, [(24, 480), (16, 33)]], ids=['border', 'border and padding'])
def test_gradients_are_finite_where_proposals_are_not(sizes):
    head = randomize_(small_head('two-stage', dropout=0.0)).train()
    maps = [x.requires_grad_() for x in maps_of(metas(sizes)[0]['batch_input_shape'])]
    losses = head.loss(maps, samples_of(sizes, [2, 3]))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in (*head.parameters(), *maps))


@pytest.mark.parametrize('counts', [(2, 0), (7, 1)])
def test_images_of_fewer_tokens_than_queries_have_as_many(counts):
    """A map of 2 x 2 and one of 1 x 1."""
    head = randomize_(small_head('two-stage', dropout=0.0)).train()
    sizes = [(16, 16), (16, 9)]
    predictions, proposals = head.run(maps_of((16, 16)), metas(sizes))
    assert predictions.boxes.shape == (3, 2, 5, 4)
    assert proposals.best.sort(1).values.tolist() == [list(range(5))] * 2
    losses = head.loss(maps_of((16, 16)), samples_of(sizes, counts))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in head.parameters())
    assert len(head.predict(maps_of((16, 16)), samples_of(sizes, counts))[0].bboxes) == 5 * CLASSES


@each_kind
def test_initialisation_is_that_of_the_release(kind):
    head = small_head(kind)
    head.init_weights()
    for classes, boxes in zip(head.class_embed, head.bbox_embed, strict=True):
        torch.testing.assert_close(classes.bias, torch.full((CLASSES,), -math.log(99)))
        assert not boxes.layers[-1].weight.any()
    biases = [boxes.layers[-1].bias.tolist() for boxes in head.bbox_embed]
    zeros, sizes = [0.0] * 4, [0.0, 0.0, -2.0, -2.0]
    assert biases == {'plain': [sizes] * 3, 'refine': [sizes, zeros, zeros], 'two-stage': [zeros] * 4}[kind]
    for modules in (head.class_embed, head.bbox_embed):
        assert len(set(modules)) == (1 if kind == 'plain' else len(modules))
    transformer = head.transformer
    attentions = [module for module in transformer.modules() if isinstance(module, MSDeformAttn)]
    assert len(attentions) == 5
    offsets = attentions[0].sampling_offsets.bias.view(4, 2, 4, 2)
    assert offsets[1, 1].round().tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]  # downwards, a pixel each
    own = {id(p) for module in attentions for p in module.parameters()} | {id(transformer.level_embed)}
    for name, parameter in transformer.named_parameters():
        if id(parameter) in own or parameter.ndim < 2:
            continue
        bound = math.sqrt(6 / sum(parameter.shape))  # Glorot's
        assert 0.8 * bound < parameter.abs().max() <= bound, name
    assert 0.7 < transformer.level_embed.std() < 1.3
    if kind == 'two-stage':
        assert head.query_embed is None
    else:
        assert 0.8 < head.query_embed.weight.std() < 1.2
        assert not transformer.reference_points.bias.any()


@each_kind
@pytest.mark.parametrize('with_cp', [False, True])
def test_every_parameter_gets_a_gradient(kind, with_cp):
    head = randomize_(small_head(kind, with_cp=with_cp, dropout=0.0)).train()
    sizes = [(40, 56), (24, 40)]
    sum(head.loss(maps_of((40, 56)), samples_of(sizes, [2, 3])).values()).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-4] == []


@each_kind
def test_only_what_is_behind_zeros_starts_without_a_gradient(kind):
    """Positions of tokens only say where to look, by weights of zero; last layers of boxes are zero."""
    head = small_head(kind, dropout=0.0).train()
    sum(head.loss(maps_of((40, 56)), samples_of([(40, 56), (24, 40)], [2, 3])).values()).backward()
    expected = {'transformer.level_embed'}
    for name, _ in head.bbox_embed.named_parameters():  # those shared by all layers once
        if '.layers.2.' not in name:
            expected.add(f'bbox_embed.{name}')
    assert {name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()} == expected


@each_kind
def test_checkpointing_changes_nothing_and_without_it_nothing_is_computed_twice(kind, monkeypatch):
    results, calls = [], products(monkeypatch)
    for with_cp in (False, 'light', True):
        head = randomize_(small_head(kind, with_cp=with_cp)).train()
        torch.manual_seed(2)
        losses = head.loss(maps_of((40, 56)), samples_of([(40, 56), (24, 40)], [2, 3]))
        forward = len(calls)
        results.append([*losses.values(), *torch.autograd.grad(sum(losses.values()), list(head.parameters()))])
        assert (len(calls) > forward) == bool(with_cp)
    for a, b, c in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
        torch.testing.assert_close(a, c, rtol=0, atol=1e-5)


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize('part', ['encoder', 'decoder'])
def test_compiles_without_graph_breaks(kind, part):
    head = randomize_(small_head(kind))
    calls = []
    module = getattr(head.transformer, part)
    module.register_forward_pre_hook(lambda module, args: calls.append(args))
    torch._dynamo.reset()
    with torch.no_grad():
        head(maps_of((40, 56)), metas([(40, 56), (24, 40)]))
        module._forward_pre_hooks.clear()
        compiled = torch.compile(module, fullgraph=True, backend='eager')
        for a, b in zip(compiled(*calls[0]), module(*calls[0]), strict=True):
            torch.testing.assert_close(a, b)


@each_kind
def test_bfloat16_autocast_trains(kind):
    head = randomize_(small_head(kind, dropout=0.0)).train()
    references = []
    for layer in head.transformer.decoder.layers:
        layer.register_forward_pre_hook(lambda module, args: references.append(args[2]))
    samples = samples_of([(40, 56), (24, 40)], [2, 3])
    with torch.autocast('cpu', torch.bfloat16):
        predictions, proposals = head.run(maps_of((40, 56)), [sample.metainfo for sample in samples])
        losses = head.loss(maps_of((40, 56)), samples)
    assert predictions.logits.dtype == torch.bfloat16
    boxes = [predictions.boxes, *references] + ([] if proposals is None else [proposals.boxes])
    assert {x.dtype for x in boxes} == {torch.float32}
    exact = head.loss(maps_of((40, 56)), samples)
    assert abs(sum(losses.values()) / sum(exact.values()) - 1) < 0.05
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@each_kind
def test_a_step_copies_to_the_host_once_for_each_matching(kind, monkeypatch):
    head = small_head(kind).train()
    maps, samples = maps_of((40, 56)), samples_of([(40, 56), (24, 40)], [2, 3])
    copies = copies_to_host(monkeypatch)
    sum(head.loss(maps, samples).values()).backward()
    assert copies == ['cpu'] * (2 if kind == 'two-stage' else 1)


@each_kind
def test_single_scale_and_images_without_objects(kind):
    head = randomize_(small_head(kind, num_levels=1, dropout=0.0)).train()
    maps, samples = maps_of((40, 56), strides=(8,)), samples_of([(40, 56), (24, 40)], [0, 0])
    losses = head.loss(maps, samples)
    prefixes = ['', 'd0.', 'd1.'] + ['enc_'] * (kind == 'two-stage')
    assert set(losses) == {f'{prefix}loss_{name}' for prefix in prefixes for name in ('cls', 'bbox', 'iou')}
    for name, loss in losses.items():
        assert (loss > 0) == name.endswith('cls')
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(two_stage=True), ValueError, 'two_stage=True needs with_box_refine=True'),
        (dict(num_heads=5), ValueError, 'in_channels 32 must be a multiple of num_heads 5'),
        (dict(in_channels=34, num_heads=2), ValueError, 'and of 4 for the position'),
        (dict(num_querys=9), TypeError, 'num_querys'),
        (dict(softmax=True), TypeError, 'softmax'),
        (dict(test_cfg=dict(max_per_image=5)), TypeError, "unknown setting of test_cfg 'max_per_image'.*'max_per_img'"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        DeformableDETRHead(CLASSES, **{**dict(in_channels=CHANNELS), **SMALL, **kwargs})


@pytest.mark.parametrize(
    ('change', 'found'),
    [(lambda maps: maps[:1], [32]), (lambda maps: [maps[0], maps[1][:, :7]], [32, 7]), (lambda maps: [], [])],
)
def test_maps_that_do_not_fit_are_named(change, found):
    with pytest.raises(ValueError, match=rf'expected 2 maps of 32 channels .*, found maps of \{found} channels'):
        small_head()(change(maps_of((40, 56))))


def small_detector(kind: str) -> nn.Module:
    """Over maps of stride 8 to 64."""
    neck = dict(type='ChannelMapper', in_channels=[64, 160, 256], out_channels=CHANNELS, kernel_size=1, num_outs=4)
    head = dict(SMALL, type='vitdense.DeformableDETRHead', num_classes=CLASSES, in_channels=CHANNELS, num_levels=4)
    return on_pvt(
        (1, 2, 3), neck=dict(neck, norm_cfg=dict(type='GN', num_groups=8)), bbox_head=dict(head, **OPTIONS[kind])
    )


@each_kind
@pytest.mark.parametrize('sizes', [[(20, 33), (17, 30)], [(64, 96), (75, 50)], [(3, 5), (1, 1)]], ids=str)
def test_detectors_take_small_images(kind, sizes):
    model = small_detector(kind)
    inputs = demo_mm_inputs(2, [(3, *size) for size in sizes], num_items=[2, 0], num_classes=CLASSES)
    data = model.data_preprocessor(inputs, True)
    losses = model.train()(**data, mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    model.parse_losses(losses)[0].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        results = model.eval()(**data, mode='predict')
    for sample, (height, width) in zip(results, sizes, strict=True):
        found = sample.pred_instances
        assert len(found) > 0
        assert (found.scores.diff() <= 0).all()
        assert (found.bboxes >= 0).all()
        assert (found.bboxes <= torch.tensor([width, height] * 2)).all()
