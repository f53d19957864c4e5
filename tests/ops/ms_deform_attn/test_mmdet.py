"""mmcv and mmdet, as they are, over our multi-scale deformable attention."""

import warnings

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention, multi_scale_deform_attn
from support.deform_attn import LEVELS

from vitdense.ops.ms_deform_attn import MSDeformAttn, reference, use_backend


@pytest.mark.parametrize('coordinates', [2, 4])
@pytest.mark.parametrize('masked', [False, True])
def test_our_module_is_that_of_mmcv(coordinates, masked):
    torch.manual_seed(0)
    ours = MSDeformAttn(32, len(LEVELS), num_heads=4, num_points=3)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs = MultiScaleDeformableAttention(32, 4, num_points=3, dropout=0, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    pixels = sum(h * w for h, w in LEVELS)
    query, value = torch.randn(2, 7, 32), torch.randn(2, pixels, 32)
    reference_points = torch.rand(2, 7, len(LEVELS), coordinates)
    mask = torch.rand(2, pixels) < 0.3 if masked else None
    expected = theirs(
        query,
        value=value,
        identity=torch.zeros_like(query),
        key_padding_mask=mask,
        reference_points=reference_points,
        spatial_shapes=torch.tensor(LEVELS),
    )
    found = ours(query, reference_points, value, LEVELS, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_mmcv_computes_through_our_operator(monkeypatch):
    calls = []
    forward = reference.forward
    monkeypatch.setattr(reference, 'forward', lambda *x: calls.append(x) or forward(*x))
    value, locations, weights = torch.rand(1, 6, 2, 4), torch.rand(1, 3, 2, 1, 2, 2), torch.rand(1, 3, 2, 1, 2)
    shapes = torch.tensor([[2, 3]])
    function = multi_scale_deform_attn.multi_scale_deformable_attn_pytorch
    with use_backend('reference'):
        out = function(value, shapes, locations, weights)
    assert len(calls) == 1
    torch.testing.assert_close(out, function.__wrapped__(value, shapes, locations, weights))
    shapes.copy_(torch.tensor([[3, 2]]))
    torch.testing.assert_close(
        function(value, shapes, locations, weights), function.__wrapped__(value, shapes, locations, weights)
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_the_compiled_operators_of_mmcv_have_a_stand_in(dtype):
    import mmcv._ext as ext

    if not hasattr(ext, '__getattr__'):
        pytest.skip('mmcv has its compiled operators')
    original = multi_scale_deform_attn.multi_scale_deformable_attn_pytorch.__wrapped__
    value, locations, weights = torch.rand(2, 6, 2, 4), torch.rand(2, 3, 2, 1, 2, 2), torch.rand(2, 3, 2, 1, 2)
    halves = [x.to(dtype) for x in (value, locations, weights)]
    wide = [x.float().requires_grad_() for x in halves]
    shapes, start = torch.tensor([[2, 3]]), torch.tensor([0])
    expected = original(wide[0], shapes, *wide[1:])
    out = ext.ms_deform_attn_forward(halves[0], shapes, start, *halves[1:], im2col_step=64)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=1e-3, atol=1e-3)
    grads = [torch.zeros_like(x) for x in halves]
    seed = torch.rand_like(out)
    assert ext.ms_deform_attn_backward(halves[0], shapes, start, *halves[1:], seed, *grads, im2col_step=64) is None
    for ours, theirs in zip(grads, torch.autograd.grad(expected, wide, seed.float()), strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=2e-3, atol=2e-3)


def test_gpus_take_our_function_with_locations_that_are_not_rounded():
    value, locations, weights = torch.rand(1, 60, 1, 4), torch.rand(1, 30, 1, 1, 2, 2), torch.rand(1, 30, 1, 1, 2)
    shapes = torch.tensor([[1, 60]])
    apply = multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    out = apply(value.bfloat16(), shapes, torch.tensor([0]), locations, weights, 64)
    exact = multi_scale_deform_attn.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    torch.testing.assert_close(out.float(), exact, rtol=0, atol=2e-2)


@pytest.mark.slow
def test_deformable_detr_of_mmdet_trains_a_step_and_predicts(monkeypatch):
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules
    from mmengine.hub import get_config

    from vitdense.ops.ms_deform_attn import backends

    calls = []
    backend_of = backends.backend_of

    def counted(value):
        calls.append(value.shape)
        return backend_of(value)

    monkeypatch.setattr('vitdense.ops.ms_deform_attn.operator.backend_of', counted)
    register_all_modules()
    config = get_config('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py')
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()  # its level embedding is made of whatever was in memory
    data = model.data_preprocessor(demo_mm_inputs(2, [(3, 97, 129), (3, 64, 90)]), training=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        losses = model(**data, mode='loss')
        sum(loss for loss in losses.values()).backward()
        assert len(calls) == 2 * 12
        assert all(loss.isfinite() for loss in losses.values())
        offsets = [p for name, p in model.named_parameters() if 'sampling_offsets' in name]
        assert len(offsets) == 2 * 12
        assert all(p.grad.isfinite().all() and p.grad.any() for p in offsets)
        model.eval()
        with torch.no_grad():
            results = model(**data, mode='predict')
    assert len(calls) == 3 * 12
    assert [len(result.pred_instances) for result in results] == [100, 100]
