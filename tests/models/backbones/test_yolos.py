"""YOLOS against transformers with the same weights, its tables, its files, and a detector that learns."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from support.backbones import TOLERANCE, image, layout_of, randomize_, release, save
from torch import nn
from torch.nn import functional as F

from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.translate import convert
from vitdense.models.backbones import YOLOS
from vitdense.models.heads import YOLOSHead

RELEASES = {'tiny': 'yolos_ti', 'small': 'yolos_s', 'small_dwr': 'yolos_s_dwr', 'base': 'yolos_b'}


def small(depth: int = 3, **kwargs) -> YOLOS:
    """A narrow model of 2 x 3 patches and 5 detection tokens."""
    torch.manual_seed(0)
    sizes = dict(embed_dims=48, num_heads=3, img_size=(32, 48), det_tokens=5)
    return YOLOS('small', **{**sizes, 'depth': depth, **kwargs})


def reference(model: YOLOS, image_size: tuple[int, int], num_classes: int) -> nn.Module:
    """The model of transformers with the sizes of ``model``; its tables may be stated in pixels that make no patch."""
    row = model.arch
    config = transformers.YolosConfig(
        hidden_size=row.embed_dims,
        num_hidden_layers=row.depth,
        num_attention_heads=row.num_heads,
        intermediate_size=int(row.embed_dims * row.mlp_ratio),
        layer_norm_eps=1e-6,
        image_size=list(image_size),
        num_detection_tokens=row.det_tokens,
        use_mid_position_embeddings=row.mid_pos_embed,
        num_labels=num_classes,
    )
    return randomize_(transformers.YolosForObjectDetection(config), gain=1.0)


def load(model: YOLOS, head: YOLOSHead, theirs: nn.Module) -> None:
    detector = nn.ModuleDict(dict(backbone=model, bbox_head=head))
    detector.load_state_dict(convert(theirs.state_dict(), 'yolos_detector')[0])
    model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arch', 'depth', 'table', 'sizes'),
    [
        ('tiny', 12, (800, 1333), [(256, 192), (75, 310)]),
        ('small', 3, (512, 864), [(512, 864), (250, 310)]),
        ('small_dwr', 3, (512, 864), [(160, 336), (864, 512)]),  # the second has as many patches, in another shape
        ('base', 2, (800, 1344), [(160, 128), (111, 47)]),
    ],
)
def test_equals_transformers(arch, depth, table, sizes):
    model = YOLOS(arch, depth=depth)
    head = YOLOSHead(20, model.out_channels[0])
    theirs = reference(model, table, 20)
    load(model, head, theirs)
    for hw in sizes:
        with torch.no_grad():
            expected = theirs(image(hw, batch=2))
            logits, boxes = head(model(image(hw, batch=2)))
        assert logits.shape == (1, 2, 100, 21)
        assert expected.logits.std(1).mean() > 0.1
        assert expected.pred_boxes.std(1).mean() > 0.01
        assert (logits[0] - expected.logits).abs().max() <= TOLERANCE
        assert (boxes[0] - expected.pred_boxes).abs().max() <= TOLERANCE


def test_gradients_equal_those_of_transformers():
    model, head = small(), YOLOSHead(4, 48)
    theirs = reference(model, (32, 48), 4)
    load(model, head, theirs)
    for network in (lambda x: head(model(x)), lambda x: theirs(x)[:2]):
        logits, boxes = network(image((64, 50), batch=2))
        (logits.square().sum() + boxes.square().sum()).backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, gradient in convert(expected, 'yolos')[0].items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(('arch', 'name'), RELEASES.items())
def test_names_and_shapes_equal_the_release(arch, name):
    layout = layout_of(name)
    with torch.device('meta'):
        model = YOLOS(arch)
        head = YOLOSHead(layout['hyper']['num_classes'], model.out_channels[0])
    ours = {f'backbone.{key}': value for key, value in model.state_dict().items()} | head.state_dict()
    assert {key: tuple(value.shape) for key, value in ours.items()} == {
        key: tuple(shape) for key, shape, *_ in layout['keys']
    }
    assert sum(p.numel() for module in (model, head) for p in module.parameters()) == layout['params']


def test_position_tables_are_resized_without_their_other_entries():
    """Twice the size in both directions: interpolation by hand at the pixel centres."""
    model = randomize_(small())
    for table in (model.pos_embed, model.mid_pos_embed[:, 0]):
        fitted = model.fit(table, (4, 6))
        grid = table[:, 1:-5].unflatten(1, (2, 3)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, scale_factor=2, mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
        torch.testing.assert_close(fitted[:, 1:-5], grid)
        assert torch.equal(fitted[:, :1], table[:, :1])
        assert torch.equal(fitted[:, -5:], table[:, -5:])


def test_each_position_table_between_blocks_is_used():
    model = randomize_(small())
    with torch.no_grad():
        before = model(image((32, 48)))[0]
        for index in range(2):
            table = model.mid_pos_embed[index].clone()
            model.mid_pos_embed[index] = 0
            assert (model(image((32, 48)))[0] - before).abs().max() > 1e-2
            model.mid_pos_embed[index] = table


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_official_file_loads_unmodified(tmp_path, log, arch):
    state = release(RELEASES[arch])
    path = save(tmp_path, {'model': state})
    model = YOLOS(arch, init_cfg=dict(type='vitdense.Pretrained', checkpoint=path))
    model.init_weights()
    assert all(torch.equal(value, state[f'backbone.{key}']) for key, value in model.state_dict().items())
    assert log == [f'loaded 100 % of backbone parameters from {path} (YOLOS release), left out 12 (bbox_head.*)']


def test_official_file_does_not_fit_another_image_size(tmp_path):
    path = save(tmp_path, {'model': release('yolos_ti')})
    with pytest.raises(ValueError, match=r'pos_embed with 4251 entries fits neither .* img_size .* which has 1701'):
        Pretrained(path)(YOLOS('tiny', img_size=(512, 800)))


@pytest.mark.parametrize('distilled', [False, True])
def test_deit_file_gives_its_blocks_and_positions(tmp_path, log, distilled):
    state = release('deit_tiny_patch16_224')
    model = YOLOS('tiny', img_size=(128, 288))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if distilled:
        state |= {'dist_token': torch.randn(1, 1, 192), 'head_dist.weight': torch.randn(1000, 192)}
        state['pos_embed'] = torch.randn(1, 198, 192)
    path = save(tmp_path, {'model': state})
    Pretrained(path)(model)
    table, skipped = state['pos_embed'], int(distilled)
    grid = table[:, 1 + skipped :].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(8, 18), mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed[:, 1:-100].data, grid)
    assert torch.equal(model.pos_embed[:, 0].data, table[:, skipped])  # the distillation token's, if there is one
    assert torch.equal(model.pos_embed[:, -100:].data, before['pos_embed'][:, -100:])
    assert torch.equal(model.det_token.data, before['det_token'])
    for key, value in model.state_dict().items():
        assert key in ('pos_embed', 'det_token') or torch.equal(value, state[key])
    dropped = '4 (head.*, head_dist.*, dist_token)' if distilled else '2 (head.*)'
    share = 100 * (1 - 100 * 192 / sum(value.numel() for value in before.values()))
    assert log == [
        f'loaded {share:.1f} % of backbone parameters from {path} (timm/DeiT/MAE/BEiT), resized 1 (pos_embed), '
        f'fresh 1 (det_token), left out {dropped}'
    ]


def test_positions_between_blocks_stay_fresh_with_deit(tmp_path, log):
    model = YOLOS('small')
    before = model.mid_pos_embed.detach().clone()
    path = save(tmp_path, {'model': release('deit_small_patch16_224')})
    Pretrained(path)(model)
    assert torch.equal(model.mid_pos_embed.data, before)
    assert log[-1].startswith('loaded 74.2 % of backbone parameters')
    assert log[-1].endswith('resized 1 (pos_embed), fresh 2 (det_token, mid_pos_embed), left out 2 (head.*)')


@pytest.mark.parametrize('whole', [True, False])
def test_file_of_transformers_loads(tmp_path, log, whole):
    theirs = reference(small(), (32, 48), 4)
    state = theirs.state_dict() if whole else theirs.vit.state_dict()
    if not whole:  # as older versions name it; pooler as in YolosModel
        state['encoder.mid_position_embeddings'] = state.pop('encoder.interpolation.mid_position_embeddings')
        state['pooler.dense.weight'] = torch.zeros(48, 48)
    path = save(tmp_path, state)
    model = small()
    Pretrained(path)(model)
    assert torch.equal(model.mid_pos_embed.data, theirs.vit.encoder.interpolation.mid_position_embeddings.data)
    assert torch.equal(model.det_token.data, theirs.vit.embeddings.detection_tokens.data)
    dropped = '12 (bbox_head.*)' if whole else '1 (pooler.*)'
    assert len(log) == 1
    assert log[0].startswith(f'loaded 100 % of backbone parameters from {path} (transformers')
    assert log[0].endswith(f'), left out {dropped}')


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 100), width=st.integers(1, 100))
def test_what_is_beyond_whole_patches_has_no_influence(height, width):
    """Unless there is no whole patch."""
    model = randomize_(small())
    picture = torch.randn(1, 3, height, width)
    rows, columns = (max(side // 16, 1) * 16 for side in (height, width))
    whole = F.pad(picture, (0, columns - width, 0, rows - height))
    with torch.no_grad():
        (found,), (expected,) = model(picture), model(whole)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('name', ['proj_drop', 'attn_drop', 'mlp_drop', 'drop_path'])
def test_regularisation_reaches_the_last_block(name):
    model = small(depth=1).train()
    block = model.blocks[0]
    assert torch.equal(model(image((64, 64)))[0], model(image((64, 64)))[0])
    if name == 'attn_drop':
        block.attn.attn_drop.p = 0.5
    else:
        drop = {'proj_drop': block.attn.proj_drop, 'mlp_drop': block.mlp.drop, 'drop_path': block.drop_path}[name]
        setattr(drop, 'drop_prob' if name == 'drop_path' else 'p', 0.5)
    torch.manual_seed(0)
    assert not torch.equal(model(image((64, 64)))[0], model(image((64, 64)))[0])


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(arch='smal'), ValueError, "YOLOS: unknown arch 'smal': did you mean 'small'"),
        (dict(det_token=50), TypeError, "YOLOS: unknown argument 'det_token': did you mean 'det_tokens'"),
        (dict(out_indices=(3,)), TypeError, "YOLOS: unknown argument 'out_indices'"),
        (dict(final_norm=False), TypeError, "YOLOS: unknown argument 'final_norm'"),
        (dict(det_tokens=0), ValueError, 'det_tokens must be at least 1, got 0'),
        (dict(img_size=(800, 1333)), ValueError, r'img_size must be multiples of patch_size 16, got \(800, 1333\)'),
        (dict(class_token=False), ValueError, 'YOLOS needs class_token=True, got False'),
        (dict(reg_tokens=4), ValueError, 'YOLOS needs reg_tokens=0, got 4'),
        (dict(pos_embed=None), ValueError, "YOLOS needs pos_embed='all', got None"),
        (dict(rel_pos='bias_table'), ValueError, "YOLOS needs rel_pos=None, got 'bias_table'"),
        (dict(frozen_stages=13), ValueError, 'from -1 to 12, got 13'),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        YOLOS(**{'arch': 'tiny', **kwargs})


@pytest.fixture
def detector():
    row = dict(embed_dims=48, num_heads=3, depth=3, img_size=(64, 96), det_tokens=20)
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mmdet.SingleStageDetector',
            data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255]),
            backbone=dict(type='vitdense.YOLOS', arch='small', **row),
            bbox_head=dict(type='vitdense.YOLOSHead', num_classes=3, in_channels=48),
            test_cfg=dict(max_per_img=7),
        )
    )


def test_detector_has_finite_losses_and_detections(detector):
    inputs = demo_mm_inputs(3, [(3, 64, 96), (3, 75, 50), (3, 30, 40)], num_items=[2, 0, 30], num_classes=3)
    losses = detector.train()(**detector.data_preprocessor(inputs, training=True), mode='loss')
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_iou'}
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert not [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.any()]
    with torch.no_grad():
        samples = detector.eval()(**detector.data_preprocessor(inputs, training=False), mode='predict')
    for sample in samples:
        height, width = sample.ori_shape
        boxes = sample.pred_instances.bboxes
        assert boxes.shape == (7, 4)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()


@pytest.mark.slow
def test_detector_finds_what_it_has_been_trained_on(detector):
    inputs = demo_mm_inputs(2, [(3, 64, 96), (3, 64, 96)], num_items=[3, 0], num_classes=3)
    inputs['inputs'][1].zero_()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    detector.train()
    for _ in range(80):
        data = detector.data_preprocessor(inputs, training=True)
        losses = detector(**data, mode='loss')
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        samples = detector.eval()(**detector.data_preprocessor(inputs, training=False), mode='predict')
    found, truth = samples[0].pred_instances, inputs['data_samples'][0].gt_instances
    best = found.scores > 0.5
    wanted = getattr(truth.bboxes, 'tensor', truth.bboxes)
    wanted = wanted / wanted.new_tensor(samples[0].scale_factor).repeat(2)  # to the image before resizing
    assert best.sum() == len(wanted)
    distances = (found.bboxes[best][:, None] - wanted).abs().amax(2)
    assert (distances.amin(0) < 5).all()
    assert torch.equal(found.labels[best][distances.argmin(0)], truth.labels)
    assert (samples[1].pred_instances.scores < 0.5).all()
