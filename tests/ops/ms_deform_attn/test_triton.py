"""The Triton back end: interpreted on the CPU, compiled for GPUs that need not be there, and run on one.

Triton decides at its import whether kernels are interpreted. So this file, run as a script, computes all ``CASES`` in
the interpreter and saves the results, which the tests then compare.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.deform_attn import Inputs, by_gathers, gradients, make_inputs, smooth, snap_
from torch.testing import assert_close

from vitdense.ops.ms_deform_attn import triton as backend

triton = pytest.importorskip('triton')
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def snapped(shift: float) -> Inputs:
    case = make_inputs(width=4, queries=30)
    snap_(case, shift)
    return case


def lost() -> Inputs:
    """Every fourth query has locations that are not numbers, infinite or very far away."""
    case = make_inputs(queries=16, width=4)
    for query, (x, y) in enumerate([(torch.nan, 0.5), (0.5, -torch.inf), (torch.inf, torch.nan), (1e30, -1e30)]):
        case.sampling_locations[:, 4 * query] = torch.tensor([x, y])
    return case


def outside() -> Inputs:
    """No sample reaches a pixel, no pixel is a number and no weight finite."""
    case = make_inputs([(7, 11), (5, 4)], width=4, low=1.2, high=1.4)
    case.sampling_locations[:, ::2] -= 1.6
    case.value.fill_(torch.nan)
    case.attention_weights.fill_(torch.inf)
    return case


def one_pixel() -> Inputs:
    """Many queries with gradients of one sign meet in one pixel: in 16 bits their sum would stop growing."""
    case = make_inputs([(1, 1)], batch=1, queries=700, heads=1, points=1, low=0.5, high=0.5)
    return case.to(torch.bfloat16)


CASES = {
    'several blocks': make_inputs(queries=21, width=32),
    'float16': make_inputs(queries=21, width=32).to(torch.float16),
    'bfloat16': make_inputs(queries=21, width=32).to(torch.bfloat16),
    'width 24, one level': make_inputs([(7, 11)], width=24, heads=3, points=1),
    'width 30, five levels': make_inputs([(3, 2), (9, 4), (1, 7), (5, 1), (1, 1)], batch=1, width=30),
    'width 1': make_inputs(width=1, points=8),
    'width 256': make_inputs(batch=1, queries=3, heads=1, width=256),
    'pixel centres': snapped(0),
    'pixel edges': snapped(0.5),
    'lost': lost(),
    'outside': outside(),
    'one pixel': one_pixel(),
    'no query': make_inputs(queries=0),
    'no image': make_inputs(batch=0),
}
# relative errors: of sums in float32, or of one rounding at the end by half of the last digit
ROUNDING = {torch.float32: 1e-5, torch.float16: 2**-11, torch.bfloat16: 2**-8}


def grad_output(case: Inputs) -> torch.Tensor:
    return case.grad_output.abs() if case.value.shape[1] == 1 else case.grad_output


def run_backend(case: Inputs) -> tuple[torch.Tensor, ...]:
    return backend.forward(*case), *backend.backward(grad_output(case), *case)


def compare(case: Inputs, results: tuple[torch.Tensor, ...], rounding: dict[torch.dtype, float] = ROUNDING) -> None:
    """Assert that output and gradients are those of the reference, and zero for locations that are not finite."""
    expected = gradients(by_gathers, case.to(torch.float64), grad_output(case))
    finite = case.sampling_locations.isfinite().all(-1)
    for result, reference in zip(results[:2], expected[:2], strict=True):
        assert result.dtype == case.value.dtype
        assert_close(result.double(), reference, rtol=rounding[result.dtype], atol=2e-5)
    for result, reference, where in zip(results[2:], expected[2:], (smooth(case)[..., 0], finite), strict=True):
        assert result.dtype == torch.float32
        assert_close(result[where].double(), reference[where], rtol=1e-5, atol=1e-4)
        assert result[~finite].count_nonzero() == 0


@pytest.fixture(scope='module', params=['interpreted', pytest.param('gpu', marks=needs_gpu)])
def results(request, tmp_path_factory):
    """A function from the name of a case to what the kernels compute."""
    if request.param == 'gpu':
        return lambda name: [x.cpu() for x in run_backend(CASES[name].to('cuda'))]
    file = tmp_path_factory.mktemp('triton') / 'results.pt'
    env = {**os.environ, 'TRITON_INTERPRET': '1', 'PYTHONPATH': os.pathsep.join(sys.path)}  # tests/ is on it, too
    subprocess.run([sys.executable, __file__, str(file)], check=True, env=env)
    return torch.load(file).__getitem__


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in CASES if name != 'outside'])
def test_kernels_are_the_reference(request, results, name):
    interpreted = 'interpreted' in request.node.name
    rounding = {**ROUNDING, torch.bfloat16: 2**-7} if interpreted else ROUNDING  # Triton's interpreter cuts digits off
    compare(CASES[name], results(name), rounding)


def test_pixels_that_no_sample_reaches_are_not_read(results):
    for result in results('outside'):
        assert result.count_nonzero() == 0


class Compiled:
    """Stands in for a kernel: compiles for a GPU what would be launched, and counts the different results."""

    def __init__(self, kernel):
        self.kernel, self.binaries = kernel, {}

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            binary = self.kernel.warmup(*args, grid=grid, **kwargs)
            self.binaries[binary.hash] = binary.asm

        return launch


@pytest.fixture
def compiled(monkeypatch):
    """Two ``Compiled``, of forward and backward, that :func:`run_backend` fills; made for a compute capability."""
    from vitdense.ops.ms_deform_attn import triton_kernels

    def make(capability: int) -> tuple[Compiled, Compiled]:
        target = triton.backends.compiler.GPUTarget('cuda', capability, 32)
        gpu = SimpleNamespace(
            get_current_device=lambda: capability,  # the number under which Triton keeps what it has compiled
            get_current_stream=lambda device: 0,
            get_current_target=lambda: target,
        )
        monkeypatch.setattr('triton.runtime.jit.driver', SimpleNamespace(active=gpu))
        kernels = Compiled(triton_kernels.forward), Compiled(triton_kernels.backward)
        monkeypatch.setattr(triton_kernels, 'forward', kernels[0])
        monkeypatch.setattr(triton_kernels, 'backward', kernels[1])
        return kernels

    return make


def resources(cubin: bytes, folder: Path) -> dict[str, int]:
    """Registers and bytes a thread takes, by the names of ``cuobjdump``."""
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    file = folder / 'kernel.cubin'
    file.write_bytes(cubin)
    text = subprocess.run([tool, '--dump-resource-usage', file], check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in re.findall(r'(REG|STACK|LOCAL):(\d+)', text)}


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
@pytest.mark.parametrize(('capability', 'limits'), [(75, (96, 96)), (80, (64, 96)), (90, (64, 96))])
def test_compiled_kernels_fit_into_registers(compiled, tmp_path, capability, limits, dtype):
    """64 registers let 1024 threads of a multiprocessor run at a time, 96 two thirds of them."""
    forward, backward = compiled(capability)
    for queries in (1, 5000):  # few are cut into smaller programs
        run_backend(make_inputs(queries=queries, heads=8, width=32).to(dtype))
    for kernel, most in zip((forward, backward), limits, strict=True):
        assert len(kernel.binaries) == 2
        for asm in kernel.binaries.values():
            used = resources(asm['cubin'], tmp_path)
            assert used['REG'] <= most, used
            assert used['STACK'] == used['LOCAL'] == 0, used
            assert 'ld.global.v4.b32' in asm['ptx'], '16 bytes of a pixel are read at once'
            assert not re.search(r'cvt\.rz\S*16', asm['ptx']), 'digits are cut off'
    vectors = r'\.v4' if capability >= 90 else ''
    for asm in backward.binaries.values():
        assert re.search(rf'(red|atom)\.global\S*\.add{vectors}\.f32', asm['ptx'])


def test_one_compilation_serves_all_sizes(compiled):
    kernels = compiled(90)
    for heads, sizes in [(1, [(1, 1), (16, 32)]), (8, [(7, 11), (2, 1)]), (16, [(64, 48), (3, 16)])]:
        for batch, queries in [(1, 1), (16, 5)]:
            run_backend(make_inputs(sizes, batch, queries, heads, width=32, points=queries))
    assert [len(kernel.binaries) for kernel in kernels] == [1, 1]


def test_misaligned_values_are_not_read_in_vectors(compiled):
    forward, _ = compiled(90)
    case = make_inputs(width=32)
    misaligned = torch.cat([torch.zeros(1), case.value.flatten()])[1:].view_as(case.value)
    run_backend(case._replace(value=misaligned))
    (asm,) = forward.binaries.values()
    assert not re.search(r'ld\.global\S*\.v[248]', asm['ptx'])


def test_why_it_cannot_run(monkeypatch):
    unavailable = backend.unavailable.__wrapped__  # without what it remembers
    gpu = torch.device('cuda', 0)
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    assert 'CUDA devices, not on cpu' in unavailable(torch.device('cpu'))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'V100')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 0))
    assert 'V100 is too old: compute capability 7.5' in unavailable(gpu)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 5))
    assert unavailable(gpu) is None
    monkeypatch.setattr(triton, '__version__', '3.2.0')
    assert 'Triton 3.2.0 is too old' in unavailable(gpu)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert 'pip install triton' in unavailable(gpu)


def test_what_does_not_fit_into_32_bits_is_refused():
    case = make_inputs([(1, 2**24 + 1)], batch=1, queries=1, heads=1, width=1)
    with pytest.raises(ValueError, match='too large for Triton'):
        backend.forward(*case)


def test_deterministic_algorithms_are_refused(monkeypatch):
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    with pytest.raises(RuntimeError, match="'triton' does not have a deterministic implementation"):
        run_backend(make_inputs(queries=0))


@needs_gpu
@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
def test_large_problem_on_a_gpu(dtype):
    case = make_inputs([(50, 84), (25, 42), (13, 21)], queries=1500, heads=8, width=32, points=4).to(dtype)
    compare(case, [x.cpu() for x in run_backend(case.to('cuda'))])


@needs_gpu
def test_graph_capture():
    """A captured launch needs nothing from the host: neither a copy of the sizes nor a wait."""
    warm, case = make_inputs(width=32).to('cuda'), make_inputs([(6, 9), (3, 3), (2, 5), (1, 1)], width=32).to('cuda')
    backend.forward(*warm)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = backend.forward(*case)
    out.zero_()
    graph.replay()
    assert_close(out, backend.forward(*case), rtol=0, atol=0)


if __name__ == '__main__':
    torch.save({name: run_backend(case) for name, case in CASES.items()}, sys.argv[1])
