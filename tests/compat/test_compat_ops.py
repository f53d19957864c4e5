"""The stand-in for mmcv's compiled operators, called through mmcv's own wrappers, against independent sources."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mmcv import ops
from support.operators import assert_same, grads, image

DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()

few = settings(max_examples=40, deadline=None)
whole = st.integers(0, 6).map(float)


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


# --- boxes ---


@st.composite
def boxes_and_scores(draw, tied: bool, nan: bool = False) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 12))
    corners = draw(arrays(np.float32, (n, 2, 2), elements=whole))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 1], axis=1)
    if tied:
        return boxes, draw(arrays(np.float32, n, elements=st.sampled_from([0.2, 0.5, 0.75] + [np.nan] * nan)))
    return boxes, (np.array(draw(st.permutations(range(n)))) / n).astype(np.float32)


def iou(a: np.ndarray, b: np.ndarray, offset: int) -> np.float32:
    w = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return np.float32(w * h) / np.float32(sum(areas) - w * h)


@few
@given(boxes_and_scores(tied=False), st.sampled_from([0.1, 0.3, 0.5, 0.6, 0.7]), st.sampled_from([0, 1]))
def test_nms_is_greedy_suppression(data, threshold, offset):
    boxes, scores = data
    expected = []
    for i in np.argsort(-scores):
        if all(iou(boxes[i], boxes[j], offset) <= np.float32(threshold) for j in expected):
            expected.append(i)
    dets, inds = ops.nms(boxes, scores, threshold, offset=offset)
    assert inds.tolist() == expected
    np.testing.assert_array_equal(dets, np.column_stack([boxes, scores])[expected])


def test_nms_counts_the_last_pixel_with_an_offset_of_1(device):
    boxes = torch.tensor([[0, 0, 3, 3], [2, 0, 5, 3.0]], device=device)  # overlap 3 of 15, or 8 of 24
    scores = torch.tensor([0.9, 0.8], device=device)
    assert [len(ops.nms(boxes, scores, 0.3, offset=offset)[1]) for offset in (0, 1)] == [2, 1]


def test_nms_keeps_a_box_at_exactly_the_threshold(device):
    boxes = torch.tensor([[0, 0, 8, 1], [2, 0, 10, 1.0]], device=device)  # overlap 6 of 10
    assert ops.nms(boxes, torch.tensor([0.9, 0.8], device=device), 0.6)[1].tolist() == [0, 1]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_of_low_precision_and_of_nothing(device, dtype):
    boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 5], [8, 8, 9, 9]], dtype=dtype, device=device)
    scores = torch.tensor([0.5, 0.75, 0.25], dtype=dtype, device=device)
    dets, inds = ops.nms(boxes, scores, 0.5)
    assert inds.tolist() == [1, 2]
    assert dets.dtype == dtype
    assert ops.nms(boxes[:0], scores[:0], 0.5)[1].shape == (0,)
    soft, soft_inds = ops.soft_nms(boxes, scores, 0.5, method='naive')
    assert soft_inds.tolist() == [1, 2]
    assert soft.device == boxes.device
    torch.testing.assert_close(soft, dets)
    assert ops.soft_nms(boxes[:0], scores[:0], 0.5)[0].shape == (0, 5)


@few
@given(boxes_and_scores(tied=False), st.sampled_from([0.1, 0.3, 0.5, 0.6, 0.7]))
def test_nms_match_groups_the_boxes_of_greedy_suppression(data, threshold):
    boxes, scores = data
    groups = []
    for i in np.argsort(-scores):
        first = next((g for g in groups if iou(boxes[g[0]], boxes[i], 0) >= np.float32(threshold)), None)
        groups.append([i]) if first is None else first.append(i)
    found = ops.nms_match(np.column_stack([boxes, scores]), threshold)
    assert [group.tolist() for group in found] == groups


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_nms_match_suppresses_at_exactly_the_threshold(device, dtype):
    dets = torch.tensor([[0, 0, 8, 1, 0.5], [2, 0, 10, 1, 0.75], [20, 0, 21, 1, 0.25]], dtype=dtype, device=device)
    groups = ops.nms_match(dets, 0.6)  # overlap 6 of 10
    assert [group.tolist() for group in groups] == [[1, 0], [2]]
    assert {(group.device, group.dtype) for group in groups} == {(dets.device, torch.int64)}
    assert [group.tolist() for group in ops.nms_match(dets, 0.601)] == [[1], [0], [2]]


def soft_nms_by_hand(boxes, scores, threshold, sigma, min_score, method, offset):
    """One box at a time, in a list that shrinks by moving its last element into the gap."""
    rest = [(scores[i], boxes[i], i) for i in range(len(boxes))]
    done = 0
    while done < len(rest):
        best = done
        for i in range(done + 1, len(rest)):  # not max(): any comparison with NaN is false
            best = i if rest[best][0] < rest[i][0] else best
        rest[done], rest[best] = rest[best], rest[done]
        position = done + 1
        while position < len(rest):
            score, box, i = rest[position]
            overlap = iou(rest[done][1], box, offset)
            if method == 'gaussian':
                score *= np.exp(-(overlap * overlap) / np.float32(sigma))
            elif overlap >= np.float32(threshold):
                score *= 1 - overlap if method == 'linear' else 0
            rest[position] = (score, box, i)
            if score < np.float32(min_score):
                rest[position] = rest[-1]
                rest.pop()
            else:
                position += 1
        done += 1
    return [(*box, score) for score, box, _ in rest], [i for *_, i in rest]


@few
@given(
    st.booleans().flatmap(lambda nan: boxes_and_scores(tied=True, nan=nan)),
    st.sampled_from([0.1, 0.3, 0.6]),
    st.sampled_from(['naive', 'linear', 'gaussian']),
    st.sampled_from([0.001, 0.2, 0.3]),
    st.sampled_from([0, 1]),
)
def test_soft_nms_is_the_sequential_algorithm(data, threshold, method, min_score, offset):
    expected, order = soft_nms_by_hand(*data, threshold, 0.5, min_score, method, offset)
    dets, inds = ops.soft_nms(*data, threshold, 0.5, min_score, method, offset)
    assert inds.tolist() == order
    np.testing.assert_allclose(dets, np.array(expected), rtol=1e-6)


@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('offset', [0, 1])
def test_bbox_overlaps_are_those_of_mmcvs_own_python(device, mode, aligned, offset):
    from mmcv.ops.bbox import _bbox_overlaps_cpu

    corners = torch.rand(2, 6, 2, 2, generator=torch.Generator().manual_seed(0)) * 10
    a, b = torch.cat([corners.amin(2), corners.amax(2)], dim=-1).to(device)
    expected = _bbox_overlaps_cpu(a, b, mode, aligned, offset)
    torch.testing.assert_close(ops.bbox_overlaps(a, b, mode, aligned, offset), expected)


# --- regions ---


def maxima_of_roi_align(x, rois, size, scale=1.0):
    return ops.roi_align(x, rois, size, scale, 0, 'max')


ROIS = torch.tensor([[0, 1.3, 2.1, 9.2, 7.7], [1, 0, 0, 11, 8], [1, 4.2, 3.3, 4.9, 3.6], [0, -3, -2, 30, 20]])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_is_torchvisions(device, aligned, sampling_ratio):
    x, rois = image(device), ROIS.to(device, torch.float64)
    ours = ops.roi_align(x, rois, (3, 4), 0.5, sampling_ratio, 'avg', aligned)
    theirs = torchvision.ops.roi_align(x, rois, (3, 4), 0.5, sampling_ratio, aligned)
    assert_same((ours, *grads(ours, x)), (theirs, *grads(theirs, x)))
    assert torch.autograd.gradcheck(
        lambda t: ops.roi_align(t, rois, (2, 2), 0.5, sampling_ratio, 'avg', aligned), x, fast_mode=True
    )


@pytest.mark.slow
@pytest.mark.parametrize('aligned', [False, True])
def test_roi_align_of_boundless_regions(aligned):
    """An untrained head may predict them; mmcv's kernel for CPUs asks for the memory of all their samples."""
    x = torch.rand(1, 2, 8, 9, requires_grad=True)
    around, inside = [0, -3e5, -3e5, 3e5, 3e5], [0, 1.0, 1, 7, 6]
    swapped = [0, 1, 5e9, 4, 1]
    rois = torch.tensor(
        [inside, [0, 1, 1, 3e9, 2e9], around, swapped, [0, 1, torch.nan, 3, 4], [0, 1, 1, torch.inf, 4]]
    )
    out = ops.roi_align(x, rois, (3, 4), 1.0, 0, 'avg', aligned)
    torch.testing.assert_close(out[:1], torchvision.ops.roi_align(x, rois[:1], (3, 4), 1.0, -1, aligned))
    assert out[1].abs().max() < 1e-3, 'nearly all of it is outside'
    assert out[2].abs().max() < 1e-3
    if aligned:
        assert (out[3] == 0).all(), 'it has no sample'
    assert out[4:].isnan().all()
    out[:4].sum().backward()
    assert x.grad.isfinite().all()


def test_roi_align_of_a_ramp_is_its_value_at_the_centre_of_each_bin(device):
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(12.0), indexing='ij')
    ramp = torch.stack([x, y])[None].to(device)
    out = ops.RoIAlign((2, 3), 0.5, sampling_ratio=2)(ramp, torch.tensor([[0, 4, 2, 16, 14.0]], device=device))
    # the region in cells is x 2..8, y 1..7, and pixel centres lie half a cell inwards
    torch.testing.assert_close(out[0, 0], torch.tensor([[2.5, 4.5, 6.5]] * 2, device=device))
    torch.testing.assert_close(out[0, 1], torch.tensor([[2.0] * 3, [5.0] * 3], device=device))


def roi_maxima(x, rois, size, scale, sampling_ratio, aligned):
    """Maxima of the samples of each bin, one bin at a time, sampled by grid_sample."""
    limits = x.new_tensor([x.shape[3], x.shape[2]])
    maxima = []
    for image_number, *corners in rois.tolist():
        start, end = (np.array(c) * scale - aligned * 0.5 for c in (corners[:2], corners[2:]))
        sides = end - start if aligned else np.maximum(end - start, 1)
        for row, column in np.ndindex(*size):
            axes = []
            for axis, (step, count) in enumerate(((column, size[1]), (row, size[0]))):
                number = sampling_ratio or int(np.ceil(sides[axis] / count))
                axes.append(start[axis] + sides[axis] / count * (step + (np.arange(number) + 0.5) / number))
            places = torch.from_numpy(np.stack(np.meshgrid(*axes), axis=-1)).to(x)
            inside = ((places >= -1) & (places <= limits)).all(dim=-1)
            source = x[int(image_number)][None]
            samples = F.grid_sample(source, (2 * places / (limits - 1) - 1)[None], 'bilinear', 'border', True) * inside
            maxima.append(samples.flatten(2).max(dim=2).values[0])
    return torch.stack(maxima, dim=-1).unflatten(-1, (len(rois), *size)).transpose(0, 1)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_of_maxima_is_that_of_its_samples(device, aligned, sampling_ratio):
    x, rois = image(device), ROIS.to(device, torch.float64)
    ours = ops.roi_align(x, rois, (3, 4), 0.5, sampling_ratio, 'max', aligned)
    theirs = roi_maxima(x, ROIS.double(), (3, 4), 0.5, sampling_ratio, aligned)
    assert_same((ours, *grads(ours, x)), (theirs, *grads(theirs, x)))


def test_roi_align_of_maxima_gives_0_for_a_region_without_samples(device):
    x, rois = image(device), torch.tensor([[0, 3, 3, 3, 9], [1, 0, 0, 8, 8.0]], device=device, dtype=torch.float64)
    out = ops.roi_align(x - 1000, rois, 2, 1.0, 0, 'max')
    assert (out[0] == 0).all()
    assert (out[1] < -900).all()
    assert not grads(out[:1], x)[0].any()


@few
@given(st.lists(st.tuples(*[st.floats(-4, 14, width=16)] * 4), min_size=1, max_size=3), st.sampled_from([0.5, 1.0]))
def test_roi_pool_is_the_maximum_of_each_bin(regions, scale):
    rois = torch.tensor([[i % 2, *region] for i, region in enumerate(regions)], dtype=torch.float64)
    x = image('cpu', channels=2)
    out = ops.roi_pool(x, rois, (2, 3), scale)
    (grad,) = grads(out, x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    expected_grad = torch.zeros_like(x)
    for n, (image_number, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        for channel, row, column in np.ndindex(2, 2, 3):
            top, left = y1 + row * (y2 - y1) / 2, x1 + column * (x2 - x1) / 3
            bottom, right = y1 + (row + 1) * (y2 - y1) / 2, x1 + (column + 1) * (x2 - x1) / 3
            rows = range(max(int(np.floor(top)), 0), min(int(np.ceil(bottom)), 9))
            columns = range(max(int(np.floor(left)), 0), min(int(np.ceil(right)), 12))
            cells = [(int(image_number), channel, h, w) for h in rows for w in columns]
            if not cells or x2 <= x1 or y2 <= y1:
                assert out[n, channel, row, column] == 0
                continue
            best = max(cells, key=lambda cell: x[cell].item())
            assert out[n, channel, row, column] == x[best]
            expected_grad[best] += weights[n, channel, row, column]
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('op', [ops.roi_align, maxima_of_roi_align, ops.roi_pool])
def test_regions_of_low_precision_are_those_of_float32_rounded(device, op, dtype):
    x = image(device, dtype)
    rois = ROIS.to(device, dtype)
    wide = x.detach().float().requires_grad_()
    low, high = op(x, rois, (2, 2), 0.5), op(wide, rois.float(), (2, 2), 0.5)
    assert_same((low,), (high.to(dtype),))
    seed = torch.ones_like(low)
    assert_same(
        torch.autograd.grad(low, x, seed), tuple(g.to(dtype) for g in torch.autograd.grad(high, wide, seed.float()))
    )


# --- focal losses ---


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_sigmoid_focal_loss_is_that_of_mmdet_and_torchvision(device, gamma):
    losses = pytest.importorskip('mmdet.models.losses.focal_loss')
    logits = torch.linspace(-30, 30, 40, dtype=torch.float64, device=device).view(10, 4).requires_grad_()
    target = torch.arange(10, device=device) % 5  # 4 is background
    one_hot = F.one_hot(target, 5)[:, :4].to(logits)
    ours = ops.sigmoid_focal_loss(logits, target, gamma, 0.3, None, 'none')
    theirs = torchvision.ops.sigmoid_focal_loss(logits, one_hot, 0.3, gamma)
    assert_same((ours, *grads(ours, logits)), (theirs, *grads(theirs, logits)))
    mmdets = losses.py_sigmoid_focal_loss(logits, one_hot, None, gamma, 0.3, 'mean')
    torch.testing.assert_close(ops.sigmoid_focal_loss(logits, target, gamma, 0.3, None, 'sum') / 40, mmdets)
    weight = logits.new_tensor([1, 2, 0.5, 0])
    weighted = ops.sigmoid_focal_loss(logits, target, gamma, 0.3, weight, 'none')
    factor = torch.cat([weight, weight.new_ones(1)])[target, None]
    assert_same((weighted, *grads(weighted, logits)), (ours * factor, *grads(ours * factor, logits)))


def test_sigmoid_focal_loss_is_finite_for_any_logit(device):
    logits = torch.tensor([[-1e4, -100.0, 100.0, 1e4]], device=device).requires_grad_()
    for target in range(5):
        loss = ops.sigmoid_focal_loss(logits, torch.tensor([target], device=device), 2.0, 0.25, None, 'none')
        assert all(t.isfinite().all() for t in (loss, *grads(loss, logits)))


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('weight', [None, [1.0, 2.0, 0.5]])
def test_softmax_focal_loss_is_its_formula(device, gamma, weight):
    logits = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    logits.requires_grad_()
    target = torch.tensor([0, 1, 2, 0, -1, 1, 2], device=device)
    weight = weight and torch.tensor(weight, dtype=torch.float64, device=device)
    log_p = logits.log_softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    expected = -0.3 * (1 - log_p.exp()) ** gamma * log_p * (target >= 0)
    expected = expected if weight is None else expected * weight[target]
    ours = ops.softmax_focal_loss(logits, target, gamma, 0.3, weight, 'sum')
    assert_same((ours, *grads(ours, logits)), (expected.sum(), *grads(expected.sum(), logits)))


def test_softmax_focal_loss_of_certain_predictions_has_no_gradient(device):
    logits = torch.tensor([[1000.0, 0, 0]], device=device).requires_grad_()
    for gamma in (0.0, 0.5, 2.0):
        loss = ops.softmax_focal_loss(logits, torch.tensor([0], device=device), gamma, 0.25, None, 'sum')
        assert_same((loss, *grads(loss, logits)), (torch.zeros_like(loss), torch.zeros_like(logits)))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_focal_loss_of_low_precision_is_that_of_float32_rounded(device, dtype):
    logits = torch.linspace(-6, 6, 20, dtype=dtype, device=device).view(5, 4)
    target = torch.arange(5, device=device)
    low, high = (ops.sigmoid_focal_loss(t, target, 2.0, 0.25, None, 'none') for t in (logits, logits.float()))
    assert_same((low,), (high.to(dtype),))


# --- types under autocast ---


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_deformable_attention_has_the_type_of_its_values_under_autocast(device, dtype):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

    value, shapes = torch.rand(1, 12, 2, 4, device=device).to(dtype), torch.tensor([[3, 4]], device=device)
    places, weights = torch.rand(1, 5, 2, 1, 3, 2, device=device), torch.rand(1, 5, 2, 1, 3, device=device)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
        other = MultiScaleDeformableAttnFunction.apply(value, shapes, shapes.new_zeros(1), places, weights, 64)
    assert found.dtype == other.dtype == dtype
    assert_same((found, other), (expected, expected))


@pytest.mark.parametrize('op', [ops.roi_align, maxima_of_roi_align, ops.roi_pool])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_regions_have_the_type_of_their_images_under_autocast(device, op, dtype):
    x = torch.rand(1, 2, 8, 8, device=device).to(dtype).requires_grad_()
    rois = torch.tensor([[0, 0, 0, 5, 6]], device=device).to(dtype)
    expected = op(x, rois, 2)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = op(x, rois, 2)
    assert found.dtype == dtype
    assert_same((found, *grads(found, x)), (expected, *grads(expected, x)))


def test_boxes_keep_their_scores_under_autocast(device):
    boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 5], [10, 10, 12, 12.0]], device=device)
    scores = torch.tensor([0.3, 0.9, 0.501], device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        for suppress in (ops.nms, ops.soft_nms):
            dets, inds = suppress(boxes, scores, 0.5)
            assert dets.dtype == torch.float32
            assert inds.tolist()[:2] == [1, 2]
            assert dets[:2, 4].tolist() == scores[[1, 2]].tolist()
