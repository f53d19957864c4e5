"""The CUDA back end: its kernels emulated on the CPU, its machine code, and, where there is a GPU, its results."""

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import SUPPORT
from support.deform_attn import Inputs, by_gathers, gradients, inputs, make_inputs, smooth
from torch import Tensor

from vitdense.ops.ms_deform_attn import build, cuda

SOURCES = Path(cuda.__file__).parent / 'csrc'
ELEMENTS = [torch.float32, torch.float16, torch.bfloat16]
# a float32 output, and half types that are rounded once
OUTPUT_ERRORS = {torch.float32: 1e-5, torch.float16: 2**-11, torch.bfloat16: 2**-8}
WIDTHS = [16, 32, 64, 30]  # three tilings, and the one for any width


class Emulation:
    """The operators of the compiled library on CPU tensors, for a GPU with few multiprocessors and small grids."""

    def __init__(self, path: Path, multiprocessors: int = 20, images_of_a_grid: int = 2):
        self.library = ctypes.CDLL(str(path))
        self.device = [multiprocessors, images_of_a_grid]

    def forward(self, value: Tensor, spatial_shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
        b, q, m = locations.shape[:3]
        output = value.new_full((b, q, m * value.shape[3]), torch.nan)
        self._run('emulate_forward', spatial_shapes, value, locations, weights, output)
        return output

    def backward(
        self, grad_output: Tensor, value: Tensor, spatial_shapes: list[int], locations: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_value = torch.zeros_like(value, dtype=torch.float32)
        by_locations, by_weights = torch.full_like(locations, torch.nan), torch.full_like(weights, torch.nan)
        tensors = (value, locations, weights, grad_output, by_value, by_locations, by_weights)
        self._run('emulate_backward', spatial_shapes, *tensors)
        return by_value.to(value.dtype), by_locations, by_weights

    def _run(self, name: str, spatial_shapes: list[int], value: Tensor, locations: Tensor, *others: Tensor) -> None:
        b, q, m, levels, p, _ = locations.shape
        numbers = [b, q, m, value.shape[3], p, *self.device, ELEMENTS.index(value.dtype), levels, *spatial_shapes]
        function = getattr(self.library, name)
        function.restype = ctypes.c_char_p
        tensors = (value, locations, *others)
        assert all(tensor.is_contiguous() for tensor in tensors)
        fault = function((ctypes.c_int64 * len(numbers))(*numbers), *(ctypes.c_void_p(x.data_ptr()) for x in tensors))
        assert not fault, fault.decode()


class Gpu:
    """The operators of the compiled library, of CPU tensors like those of the emulation."""

    def __init__(self):
        self.compiled = torch.ops.vitdense_cuda

    def forward(self, *arguments) -> Tensor:
        return self.compiled.forward(*map(_on_gpu, arguments)).cpu()

    def backward(self, *arguments) -> tuple[Tensor, ...]:
        return tuple(x.cpu() for x in self.compiled.backward(*map(_on_gpu, arguments)))


def _on_gpu(argument):
    return argument.cuda() if isinstance(argument, Tensor) else argument


@pytest.fixture(scope='module')
def library(tmp_path_factory) -> Path:
    if obstacle := build.obstacle('cuda'):
        pytest.skip(obstacle)
    path = tmp_path_factory.mktemp('cuda') / 'libvitdense_cuda.so'
    failure = build.make('cuda', path)
    assert failure is None, failure
    return path


@pytest.fixture(scope='module')
def gpu(request) -> Gpu:
    """With the library that was installed, or else with one compiled now."""
    if not torch.cuda.is_available():
        pytest.skip('there is no GPU')
    if cuda.unavailable(torch.device('cuda')):
        torch.ops.load_library(request.getfixturevalue('library'))
    return Gpu()


@pytest.fixture(scope='module', params=['800', '900', 'gpu'])
def ops(request, tmp_path_factory) -> Emulation | Gpu:
    """The kernels emulated as they are for two architectures (9.0 adds four numbers at once), and on a GPU."""
    if request.param == 'gpu':
        return request.getfixturevalue('gpu')
    compiler = build.compiler('cpu')
    if not compiler:
        pytest.skip('there is no C++ compiler')
    path = tmp_path_factory.mktemp('emulation') / f'emulation_{request.param}.so'
    command = [*compiler, '-std=c++17', '-O1', '-fPIC', '-shared', '-Wno-unknown-pragmas', f'-I{SOURCES}']
    command += [f'-D__CUDA_ARCH__={request.param}', SUPPORT / 'cuda_warp_emulation.cpp', '-o', path]
    subprocess.run(command, check=True)
    return Emulation(path)


def compare(ops, case: Inputs) -> None:
    """Output and gradients of ``ops`` against the gathers, of the numbers that a half type holds."""
    wide = Inputs(case.value.float(), *case[1:])
    expected = list(gradients(by_gathers, wide, case.grad_output))
    found = [ops.forward(*case), *ops.backward(case.grad_output, *case)]
    assert [x.dtype for x in found] == [case.value.dtype] * 2 + [torch.float32] * 2
    assert found[2].isfinite().all()  # also where it jumps, at the edges between cells
    found[2], expected[2] = found[2] * smooth(case), expected[2] * smooth(case)
    error = OUTPUT_ERRORS[case.value.dtype]
    for tensor, like, tolerance in zip(found, expected, [(error, 1e-5)] * 2 + [(1e-4, 1e-4)] * 2, strict=True):
        torch.testing.assert_close(tensor.double(), like.double(), rtol=tolerance[0], atol=tolerance[1])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=inputs(widths=(1, 8, 16, 30, 32, 40, 64)), dtype=st.sampled_from(ELEMENTS))
def test_kernels_agree_with_gathers(ops, case, dtype):
    compare(ops, case.to(dtype))


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ELEMENTS, ids=str)
@pytest.mark.parametrize('width', WIDTHS)
def test_rounds_and_blocks(ops, width, dtype):
    """More samples than a round has, more units than a block, more images than a grid."""
    compare(ops, make_inputs(batch=3, queries=41, heads=3, width=width, points=9).to(dtype))


def test_each_image_and_head_gets_its_own_pixels(ops):
    """Heads that straddle warps, each with a constant value: the output is that constant where nothing lies outside."""
    case = make_inputs([(9, 8)], batch=3, queries=7, heads=5, width=32, low=0.2, high=0.8)
    constants = torch.arange(15.0).view(3, 1, 5, 1)
    case.value.copy_(constants.expand_as(case.value))
    expected = constants.expand(3, 7, 5, 32).flatten(2)
    torch.testing.assert_close(ops.forward(*case), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('width', WIDTHS)
def test_locations_that_no_pixel_reaches(ops, width):
    """NaN, infinite and remote locations of any weight add nothing, have no gradient, and leave others alone."""
    case = make_inputs(width=width, points=3, low=0.1, high=0.9)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 2.0])
    strange = case._replace(
        sampling_locations=case.sampling_locations.clone(), attention_weights=case.attention_weights.clone()
    )
    strange.attention_weights[:, ::4, :, :, 1] = torch.inf
    strange.sampling_locations[:, ::2, :, :, 1] = odd[torch.arange(7) % 6, None, None, None]
    without = case._replace(attention_weights=case.attention_weights.clone())
    without.attention_weights[:, ::2, :, :, 1] = 0
    torch.testing.assert_close(ops.forward(*strange), ops.forward(*without), rtol=0, atol=0)
    found = ops.backward(case.grad_output, *strange)
    expected = ops.backward(case.grad_output, *without)
    torch.testing.assert_close(found[0], expected[0])
    for gradient in found[1:]:
        assert not gradient[:, ::2, :, :, 1].any()


@pytest.mark.parametrize('edge', [-0.1, 1.1])
@pytest.mark.parametrize('axis', [0, 1], ids='xy'.__getitem__)
def test_pixels_out_of_reach_are_not_read(ops, axis, edge):
    """Corners outside are neither clamped nor wrapped nor multiplied by zero: only outermost pixels are finite."""
    case = make_inputs([(4, 5), (3, 2)], width=32)
    case.sampling_locations[..., axis] = edge
    for level, hw in zip(case.value.split([20, 6], dim=1), [(4, 5), (3, 2)], strict=True):
        pixels = level.unflatten(1, hw).transpose(1, 2 - axis)
        (pixels[:, 1:] if edge < 0 else pixels[:, :-1]).fill_(torch.inf)
    assert case.value.isinf().any()
    assert ops.forward(*case).isfinite().all()


def test_levels_beyond_those_of_a_kernel(ops, monkeypatch):
    """The back end adds up parts of 32 levels."""
    monkeypatch.setattr(torch.ops, 'vitdense_cuda', ops, raising=False)
    compare(cuda, make_inputs([(2, 3)] * 30 + [(3, 1)] * 40, batch=1, queries=3, width=16))


def test_limit_of_levels_is_that_of_the_kernels():
    source = (SOURCES / 'cuda_stage.cuh').read_text()
    assert re.search(r'kMaxLevels = (\d+);', source)[1] == str(cuda.MAX_LEVELS)


def test_no_queries_and_no_images(ops):
    for numbers in (dict(batch=0), dict(queries=0)):
        case = make_inputs(**numbers)
        assert ops.forward(*case).numel() == 0
        assert not ops.backward(case.grad_output, *case)[0].any()


class Kernel(NamedTuple):
    architecture: str
    name: str  # forward or backward
    width: int  # 0: any
    resources: dict[str, int]
    code: list[str]  # instructions

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.code)


@pytest.fixture(scope='module')
def kernels(library) -> list[Kernel]:
    """The kernels for each architecture as ``cuobjdump`` shows them."""
    triton = importlib.util.find_spec('triton')
    bundled = triton and Path(triton.origin).parent / 'backends/nvidia/bin'
    tool = shutil.which('cuobjdump') or shutil.which('cuobjdump', path=bundled)
    if tool is None:
        pytest.skip('cuobjdump is not installed, neither with CUDA nor with Triton')
    found = []
    for architecture in ('sm_80', 'sm_90'):
        commands = [(tool, what, '-arch', architecture, library) for what in ('--dump-resource-usage', '-sass')]
        shown = [subprocess.run(x, capture_output=True, text=True, check=True).stdout for x in commands]
        usage = dict(re.findall(r'Function (\w+):\s+(.*)', shown[0]))
        for name, code in re.findall(r'Function : (\w+)\n(.*?)\.{10}', shown[1], re.DOTALL):
            found.append(
                Kernel(
                    architecture,
                    re.search(r'(forward|backward)_kernel', name)[1],
                    int(re.search(r'Tiling.*?Li(\d+)E', name)[1]),
                    {key: int(number) for key, number in re.findall(r'(\w+):(\d+)', usage[name])},
                    re.findall(r'/\*[0-9a-f]{4,}\*/\s+(.*?;)', code),
                )
            )
    return found


@pytest.mark.slow
def test_kernels_keep_to_registers(kernels):
    """No stack, no spills, and registers for 8 blocks of a multiprocessor forward, 6 backward."""
    assert len(kernels) == 2 * 2 * 3 * 4  # architectures, directions, types, tilings
    for kernel in kernels:
        assert kernel.resources['REG'] <= {'forward': 64, 'backward': 80}[kernel.name], kernel[:4]
        assert kernel.resources['STACK'] == kernel.resources['LOCAL'] == 0, kernel[:4]
        assert kernel.count(r'\b(LDL|STL)\b') == 0, kernel[:4]


@pytest.mark.slow
def test_kernels_move_16_bytes_at_once(kernels):
    for kernel in kernels:
        if kernel.width:
            assert kernel.count(r'\bLDG\.E\.128\.CONSTANT') >= 4, kernel[:4]
            assert min(kernel.count(r'\bLDS\.128'), kernel.count(r'\bSTS\.128')) >= 2, kernel[:4]
            assert kernel.name == 'backward' or kernel.count(r'\bSTG\.E\.128') == 1, kernel[:4]


def test_additions_are_vector_reductions_where_there_are_any(kernels):
    """Four floats at once on compute capability 9.0; never an addition that returns or that has to find its memory."""
    for kernel in kernels:
        vectors, scalars = kernel.count(r'\bREDG?\.E\.ADD\.F32x4'), kernel.count(r'\bREDG?\.E\.ADD\.F32\.')
        assert kernel.count(r'\bATOM') == 0, kernel[:4]
        if kernel.name == 'forward':
            assert vectors == scalars == 0, kernel[:4]
        else:
            expected = kernel.architecture == 'sm_90' and kernel.width > 0
            assert (vectors > 0, scalars > 0) == (expected, not expected), kernel[:4]


def test_library_uses_the_stable_abi_only(library):
    command = ['nm', '-D', '--demangle', '--undefined-only', library]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'U torch_call_dispatcher' in shown
    assert not re.findall(r'.*\b(?:at|c10|torch)::.*', shown)


@pytest.mark.slow
def test_library_defines_the_operators(library):
    code = f'import torch; torch.ops.load_library({str(library)!r}); ops = torch.ops.vitdense_cuda; '
    code += 'print(ops.forward.default._schema, ops.backward.default._schema, sep=chr(10))'
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    arguments = 'Tensor value, int[] spatial_shapes, Tensor sampling_locations, Tensor attention_weights'
    assert shown.splitlines() == [
        f'vitdense_cuda::forward({arguments}) -> Tensor',
        f'vitdense_cuda::backward(Tensor grad_output, {arguments}) -> (Tensor, Tensor, Tensor)',
    ]


def test_says_why_it_cannot_run():
    assert cuda.unavailable(torch.device('cpu')) == 'it runs on CUDA devices, not on cpu'


@pytest.fixture
def deterministic_again():
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_algorithms(ops, monkeypatch, deterministic_again):
    monkeypatch.setattr(torch.ops, 'vitdense_cuda', ops, raising=False)
    case = make_inputs()
    torch.use_deterministic_algorithms(True)
    cuda.forward(*case)
    with pytest.raises(RuntimeError, match="ms_deform_attn with the back end 'cuda' does not have a deterministic"):
        cuda.backward(case.grad_output, *case)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with pytest.warns(UserWarning, match='does not have a deterministic implementation'):
        grads = cuda.backward(case.grad_output, *case)
    assert all(grad.isfinite().all() for grad in grads)


def on_gpu(case: Inputs, device: str = 'cuda') -> Inputs:
    return Inputs(*(x.to(device) if isinstance(x, Tensor) else x for x in case))


def test_stream_of_the_caller(gpu):
    """Kernels wait for what their stream does before them: here for the value, which comes late."""
    case = on_gpu(make_inputs(queries=300, heads=8, width=32))
    expected, value = cuda.forward(*case), case.value.clone()
    case.value.zero_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        case.value.copy_(value)
        found = cuda.forward(*case)
    stream.synchronize()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='there is one GPU at most')
def test_device_of_the_tensors(gpu):
    case = make_inputs(width=32)
    second = on_gpu(case, 'cuda:1')
    found = cuda.forward(*second), *cuda.backward(second.grad_output, *second)
    expected = gpu.forward(*case), *gpu.backward(case.grad_output, *case)
    assert torch.cuda.current_device() == 0
    for tensor, like in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor.cpu(), like)


def test_graph_capture(gpu):
    """No kernel waits for the host, and a replay reads what the inputs hold by then."""
    first, second = (on_gpu(make_inputs(width=32, seed=seed)) for seed in (1, 2))
    grad_output = first.grad_output
    graph = torch.cuda.CUDAGraph()
    cuda.forward(*first)
    with torch.cuda.graph(graph):
        output, grads = cuda.forward(*first), cuda.backward(grad_output, *first)
    for i in (0, 2, 3):
        first[i].copy_(second[i])
    graph.replay()
    torch.testing.assert_close(output, cuda.forward(*second), rtol=0, atol=0)
    for tensor, like in zip(grads, cuda.backward(grad_output, *second), strict=True):
        torch.testing.assert_close(tensor, like)


@pytest.mark.parametrize('dtype', ELEMENTS, ids=str)
def test_misaligned_views(gpu, dtype):
    """Contiguous tensors that begin one element later than aligned ones."""
    case = on_gpu(make_inputs(width=32).to(dtype))
    shifted = Inputs(*(_shifted(x) if isinstance(x, Tensor) else x for x in case))
    grad_output = case.grad_output
    torch.testing.assert_close(cuda.forward(*shifted), cuda.forward(*case), rtol=0, atol=0)
    found, expected = cuda.backward(_shifted(grad_output), *shifted), cuda.backward(grad_output, *case)
    for tensor, like in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor, like)


def _shifted(tensor: Tensor) -> Tensor:
    moved = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape)
    return moved.copy_(tensor)


def test_more_images_than_a_grid_has(gpu):
    case = on_gpu(make_inputs([(1, 1)], batch=65_537, queries=1, heads=1, width=16, points=1, low=0.5, high=0.5))
    torch.testing.assert_close(cuda.forward(*case), case.value[:, 0], rtol=1e-6, atol=1e-6)


def test_last_pixel_of_a_large_image(gpu):
    """Elements beyond 2^31, bytes beyond 2^32."""
    if torch.cuda.mem_get_info()[0] < 6 << 30:
        pytest.skip('it takes 6 GB of GPU memory')
    side = 2900
    value = torch.zeros(1, side**2, 8, 32, dtype=torch.bfloat16, device='cuda')
    value[0, -1] = 1
    locations = torch.full((1, 1, 8, 1, 1, 2), 1 - 0.5 / side, device='cuda')
    output = cuda.forward(value, [side, side], locations, torch.ones(1, 1, 8, 1, 1, device='cuda'))
    torch.testing.assert_close(output, torch.ones_like(output), rtol=0, atol=0.01)


def test_errors_name_the_argument(gpu):
    case = on_gpu(make_inputs())
    with pytest.raises(RuntimeError, match='spatial_shapes: expected 102 pixels as in value, found 101'):
        torch.ops.vitdense_cuda.forward(case.value, [7, 11, 5, 4, 1, 3, 1, 1], *case[2:])
    with pytest.raises(RuntimeError, match='sampling_locations: expected 12 in dimension 1, found 13'):
        torch.ops.vitdense_cuda.forward(*case[:3], case.attention_weights[:, :12].contiguous())
