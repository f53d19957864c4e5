"""Deformable convolution by the stand-in, through mmcv's own wrappers, against torchvision and by hand."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmcv import ops
from support.operators import assert_same, grads, image

DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


GEOMETRY = {'stride': (2, 1), 'padding': (1, 2), 'dilation': (1, 2)}


def conv_inputs(device: str, groups: int, deform_groups: int, kernel=(3, 2)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    taps = deform_groups * kernel[0] * kernel[1]
    size = F.conv2d(torch.zeros(1, 1, 9, 12), torch.zeros(1, 1, *kernel), **GEOMETRY).shape[2:]
    shapes = {
        'input': (2, 4, 9, 12),
        'offset': (2, 2 * taps, *size),
        'mask': (2, taps, *size),
        'weight': (6, 4 // groups, *kernel),
        'bias': (6,),
    }
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(device).requires_grad_()
        for name, shape in shapes.items()
    }


def deform(t: dict[str, torch.Tensor], groups: int, deform_groups: int, modulated: bool) -> torch.Tensor:
    if modulated:
        mask, weight, bias = t['mask'], t['weight'], t['bias']
        return ops.modulated_deform_conv2d(
            t['input'], t['offset'], mask, weight, bias, *GEOMETRY.values(), groups, deform_groups
        )
    return ops.deform_conv2d(t['input'], t['offset'], t['weight'], *GEOMETRY.values(), groups, deform_groups)


@pytest.mark.parametrize('modulated', [True, False])
@pytest.mark.parametrize(('groups', 'deform_groups'), [(1, 1), (2, 1), (1, 2), (2, 4)])
def test_deform_conv_is_torchvisions(device, modulated, groups, deform_groups):
    t = conv_inputs(device, groups, deform_groups)
    ours = deform(t, groups, deform_groups, modulated)
    theirs = torchvision.ops.deform_conv2d(
        t['input'],
        t['offset'],
        t['weight'],
        t['bias'] if modulated else None,
        **GEOMETRY,
        mask=t['mask'] if modulated else None,
    )
    inputs = [t[name] for name in (t if modulated else ('input', 'offset', 'weight'))]
    expected = grads(theirs, *inputs)
    assert_same((ours, *grads(ours, *inputs)), (theirs, *expected))
    assert_same(grads(ours, *inputs), expected)  # the graph is kept, and no gradient has been added up


@pytest.mark.parametrize('modulated', [True, False])
def test_gradients_of_images_with_channels_last(modulated):
    t = conv_inputs('cpu', 1, 2)
    names = list(t) if modulated else ['input', 'offset', 'weight']
    expected = grads(deform(t, 1, 2, modulated), *(t[name] for name in names))
    last = {
        name: (x.detach().to(memory_format=torch.channels_last) if x.ndim == 4 else x.detach()).requires_grad_()
        for name, x in t.items()
    }
    assert_same(grads(deform(last, 1, 2, modulated), *(last[name] for name in names)), expected)


def test_deform_conv_does_not_reuse_the_gradient_of_another_output():
    import mmcv._ext as ext

    x, offset, weight = image('cpu').detach(), torch.zeros(2, 2, 9, 12).double(), torch.rand(3, 3, 1, 1).double()
    names = ('kW', 'kH', 'dW', 'dH', 'padW', 'padH', 'dilationW', 'dilationH', 'group', 'deformable_group')
    geometry = dict(zip(names, (1, 1, 1, 1, 0, 0, 1, 1, 1, 1), strict=True), im2col_step=2)
    columns, ones, grad = x.new_empty(0), x.new_empty(0), torch.ones_like(x)
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    ext.deform_conv_backward_input(x, offset, grad, x.clone(), offset.clone(), weight, columns, **geometry)
    ext.deform_conv_backward_parameters(x, offset, grad, first, columns, ones, **geometry, scale=1)
    ext.deform_conv_backward_parameters(x, offset, 3 * grad, second, columns, ones, **geometry, scale=1)
    torch.testing.assert_close(first[:, :, 0, 0], x.sum((0, 2, 3)).expand(3, 3))
    torch.testing.assert_close(second, 3 * first)


@pytest.mark.parametrize('modulated', [True, False])
def test_deform_conv_without_offsets_is_a_convolution(device, modulated):
    t = {name: tensor.detach() for name, tensor in conv_inputs(device, 2, 2).items()}
    t.update(offset=torch.zeros_like(t['offset']), mask=torch.ones_like(t['mask']))
    t['weight'].requires_grad_()  # alone: mmcv then skips the gradient of the input
    plain = F.conv2d(t['input'], t['weight'], t['bias'] if modulated else None, **GEOMETRY, groups=2)
    ours = deform(t, 2, 2, modulated)
    assert_same((ours, *grads(ours, t['weight'])), (plain, *grads(plain, t['weight'])))


def test_offsets_are_pairs_of_y_and_x(device):
    x = image(device).detach()
    weight = torch.eye(3, dtype=x.dtype, device=device)[:, :, None, None]
    offset = torch.tensor([2.0, 3.0], dtype=x.dtype, device=device).view(1, 2, 1, 1).expand(2, 2, 9, 12)
    moved = ops.deform_conv2d(x, offset.contiguous(), weight, 1, 0)
    torch.testing.assert_close(moved[:, :, :-2, :-3], x[:, :, 2:, 3:])


@pytest.mark.parametrize('kind', [ops.DeformConv2dPack, ops.ModulatedDeformConv2dPack])
def test_deform_conv_under_autocast(device, kind):
    torch.manual_seed(0)
    layer = kind(4, 6, 3, padding=1).to(device)
    x = torch.randn(2, 4, 7, 8, device=device)
    exact = layer(x)
    with torch.autocast(device, dtype=torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, rtol=2e-2, atol=2e-2)
    low.float().square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in layer.parameters() if p is not layer.conv_offset.bias)


def test_one_sample_of_a_deformable_convolution_has_no_slope_outside(device):
    """As the value, 0 up to -1 and from the size on, and linear between -1 and 0."""
    x, weight = torch.full((1, 1, 3, 4), 2.0, device=device), torch.ones(1, 1, 1, 1, device=device)
    for axis, size in ((0, 3), (1, 4)):
        for place, slope in ((-1.5, 0), (-1, 0), (-0.5, 2), (0.5, 0), (size - 0.5, -2), (size, 0), (size + 1, 0)):
            offset = torch.zeros(1, 2, 3, 4, device=device)
            offset[0, axis, 0, 0] = place
            offset.requires_grad_()
            ops.deform_conv2d(x, offset, weight).sum().backward()
            assert offset.grad[0, axis, 0, 0] == slope, (axis, place)


def test_offsets_larger_than_the_output_are_read_in_the_order_of_their_numbers(device):
    """Number ((channel * H') + y) * W' + x of an image, with the size of the output, as in mmcv's kernels."""
    t = conv_inputs(device, 2, 2)
    height, width = t['offset'].shape[2:]
    large = {
        name: torch.randn(2, t[name].shape[1], height + 2, width + 3, dtype=torch.float64, device=device)
        for name in ('offset', 'mask')
    }
    for name, x in large.items():
        x.requires_grad_()
        strides = (x.stride(0), height * width, width, 1)
        t[f'first {name}'] = x.as_strided((2, x.shape[1], height, width), strides)
    ours = deform(t | large, 2, 2, modulated=True)
    theirs = torchvision.ops.deform_conv2d(
        t['input'], t['first offset'], t['weight'], t['bias'], **GEOMETRY, mask=t['first mask']
    )
    inputs = [t['input'], t['weight'], t['bias'], *large.values()]
    assert_same((ours, *grads(ours, *inputs)), (theirs, *grads(theirs, *inputs)))


def test_offsets_of_another_size_are_refused_by_version_1(device):
    t = conv_inputs(device, 1, 1)
    t['offset'] = torch.zeros(2, t['offset'].shape[1], 20, 30, dtype=torch.float64, device=device)
    with pytest.raises(RuntimeError, match='offset output dims'):
        deform(t, 1, 1, modulated=False)


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_dyhead_of_mmdet_learns(device, dtype):
    necks = pytest.importorskip('mmdet.models.necks')
    torch.manual_seed(0)
    neck = necks.DyHead(16, 16, num_blocks=2, zero_init_offset=False).to(device)
    maps = [torch.randn(2, 16, 12 >> i, 16 >> i, device=device) for i in range(3)]
    with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        found = neck(maps)
    assert [x.shape for x in found] == [x.shape for x in maps]
    sum(x.float().square().sum() for x in found).backward()
    assert all(p.grad.isfinite().all() for p in neck.parameters() if p.grad is not None)
    assert neck.dyhead_blocks[0].spatial_conv_offset.weight.grad.any()
