"""Multi-scale deformable attention as an operator of PyTorch: compilation, export, autocast, choice of back end."""

import logging
import threading

import pytest
import torch
from hypothesis import given, settings
from support.deform_attn import LEVELS, by_gathers, inputs, make_inputs

from vitdense.ops.ms_deform_attn import (
    DECOMPOSITIONS,
    BackendUnavailableError,
    backends,
    ms_deform_attn,
    operator,
    use_backend,
)

OPS = torch.ops.vitdense


@pytest.fixture(params=['reference', None])
def any_backend(request):
    """The reference, and whatever this machine prefers."""
    with use_backend(request.param):
        yield


def leaves(case, dtype=torch.float32):
    case = case.to(dtype)
    return [case[i].clone().requires_grad_() for i in (0, 2, 3)]


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(inputs(widths=(4, 30)))
def test_opcheck(case):
    value, locations, weights = leaves(case)
    torch.library.opcheck(OPS.ms_deform_attn.default, (value, case.spatial_shapes, locations, weights))
    tensors = [x.detach() for x in (value, locations, weights)]
    arguments = (case.grad_output, tensors[0], case.spatial_shapes, *tensors[1:])
    torch.library.opcheck(OPS.ms_deform_attn_backward.default, arguments)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_opcheck_of_other_types(any_backend, dtype):
    case = make_inputs()
    value, locations, weights = leaves(case, dtype)
    torch.library.opcheck(OPS.ms_deform_attn.default, (value, case.spatial_shapes, locations, weights))


def test_compiled_without_graph_breaks_and_without_a_graph_for_each_size(any_backend):
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    def attend(maps, locations, weights):
        value = torch.cat([x.flatten(2).mT for x in maps], dim=1).unflatten(2, (2, -1))
        return ms_deform_attn(value, [x.shape[2:] for x in maps], locations, weights).square()

    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=True, backend=count)
    for h, w in [(5, 8), (7, 4), (11, 13), (6, 9), (3, 10)]:
        case = make_inputs([(h, w), (2 * h + 1, w + 2)])
        maps = [torch.randn(2, 16, h, w), torch.randn(2, 16, 2 * h + 1, w + 2)]
        torch.testing.assert_close(compiled(maps, *case[2:]), attend(maps, *case[2:]))
    assert len(graphs) <= 2


def test_compiled_gradients(any_backend):
    case = make_inputs()
    eager, compiled = leaves(case), leaves(case)

    def loss(value, locations, weights):
        return ms_deform_attn(value, LEVELS, locations, weights).square().sum()

    loss(*eager).backward()
    torch.compile(loss, fullgraph=True, backend='aot_eager')(*compiled).backward()
    for ours, theirs in zip(compiled, eager, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


class Attention(torch.nn.Module):
    def forward(self, fine, coarse, locations, weights):
        value = torch.cat([x.flatten(2).mT for x in (fine, coarse)], dim=1).unflatten(2, (2, -1))
        return ms_deform_attn(value, [fine.shape[2:], coarse.shape[2:]], locations, weights)


def pyramid(h, w):
    case = make_inputs([(h, w), (3, 2)])
    return torch.randn(2, 16, h, w), torch.randn(2, 16, 3, 2), *case[2:]


@pytest.fixture
def exported():
    dim = torch.export.Dim
    shapes = ({2: dim('h', min=2, max=64), 3: dim('w', min=2, max=64)}, None, None, None)
    return torch.export.export(Attention(), pyramid(5, 7), dynamic_shapes=shapes)


def test_export_keeps_the_operator_and_any_size(exported):
    assert any(node.target is OPS.ms_deform_attn.default for node in exported.graph.nodes)
    arguments = pyramid(9, 4)
    torch.testing.assert_close(exported.module()(*arguments), Attention()(*arguments))


@pytest.mark.slow
def test_export_to_onnx(exported, tmp_path):
    import onnxruntime

    plain = exported.run_decompositions({**torch.export.default_decompositions(), **DECOMPOSITIONS})
    assert not any('vitdense' in str(node.target) for node in plain.graph.nodes)
    torch.onnx.export(plain, (), tmp_path / 'attention.onnx', dynamo=True, opset_version=20, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / 'attention.onnx')
    names = [argument.name for argument in session.get_inputs()]
    for hw in ((5, 7), (9, 4)):
        arguments = pyramid(*hw)
        (out,) = session.run(None, {name: x.numpy() for name, x in zip(names, arguments, strict=True)})
        torch.testing.assert_close(torch.from_numpy(out), Attention()(*arguments), rtol=0, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_rounds_values_and_nothing_else(any_backend, dtype):
    case = make_inputs([(40, 60)])
    expected = ms_deform_attn(case.value.to(dtype), [(40, 60)], *case[2:])
    value, locations, weights = leaves(case)
    with torch.autocast('cpu', dtype):
        out = ms_deform_attn(value, [(40, 60)], locations, weights)
        halves = ms_deform_attn(value, [(40, 60)], locations.to(dtype), weights.to(dtype))
        wide = ms_deform_attn(value.double(), [(40, 60)], locations.double(), weights.double())
    assert out.dtype == halves.dtype == dtype
    assert wide.dtype == torch.float64
    assert torch.equal(out, expected)
    assert not torch.equal(halves, expected)
    out.float().square().sum().backward()
    assert [x.grad.dtype for x in (value, locations, weights)] == [torch.float32] * 3
    assert all(x.grad.any() for x in (value, locations, weights))


def test_autocast_in_a_compiled_graph(any_backend):
    case = make_inputs()

    def attend(*tensors):
        return ms_deform_attn(tensors[0], LEVELS, *tensors[1:])

    compiled = torch.compile(attend, fullgraph=True, backend='aot_eager')
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(compiled(*leaves(case)), attend(*leaves(case)), rtol=0, atol=0)


# --- choice of the back end ---


class Fake:
    """A back end that counts its calls, or cannot run."""

    def __init__(self, reason=None):
        self.reason, self.calls = reason, 0

    def unavailable(self, device):
        return self.reason

    def forward(self, value, spatial_shapes, sampling_locations, attention_weights):
        self.calls += 1
        return by_gathers(value, spatial_shapes, sampling_locations, attention_weights).to(value.dtype)


@pytest.fixture
def modules(monkeypatch):
    """Stand-ins of all back ends but the reference."""
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    real = backends._module
    fakes = {
        'cpu': Fake(),
        'numba': Fake('numba is not installed'),
        'cuda': Fake('it is not built'),
        'triton': Fake('there is no GPU'),
    }
    monkeypatch.setattr(backends, '_module', lambda name: fakes.get(name) or real(name))
    backends._chosen.cache_clear()
    yield fakes
    backends._chosen.cache_clear()


def attend(dtype=torch.float32):
    case = make_inputs().to(dtype)
    return ms_deform_attn(case.value, LEVELS, *case[2:])


def test_the_first_that_can_run_is_taken_and_said_once(modules, caplog):
    with caplog.at_level(logging.INFO, 'vitdense'):
        attend(), attend()
    assert modules['cpu'].calls == 2
    assert [record.getMessage() for record in caplog.records] == [
        'ms_deform_attn: back end cpu for torch.float32 on cpu'
    ]


def test_why_a_faster_one_is_not_taken_is_said(modules, caplog):
    modules['cpu'].reason = 'there is no compiler'
    with caplog.at_level(logging.INFO, 'vitdense'):
        attend()
    expected = 'back end reference for torch.float32 on cpu; cpu: there is no compiler; numba: numba is not installed'
    assert expected in caplog.text


def test_without_a_compiler_numba_comes_before_the_reference(modules):
    modules['cpu'].reason, modules['numba'].reason = 'there is no compiler', None
    attend()
    assert modules['numba'].calls == 1


def test_on_a_gpu_compiled_comes_before_triton_before_the_reference(modules):
    choose = backends._chosen
    modules['cuda'].reason = modules['triton'].reason = None
    assert choose(torch.device('cuda', 0), torch.float32) == 'cuda'
    choose.cache_clear()
    modules['cuda'].reason = 'it is not built'
    assert choose(torch.device('cuda', 0), torch.float32) == 'triton'
    assert choose(torch.device('cuda', 0), torch.float64) == 'reference'


@pytest.mark.parametrize('by_variable', [True, False])
def test_a_forced_one_is_taken_or_says_why_not(modules, monkeypatch, by_variable):
    def force(name):
        if by_variable:
            monkeypatch.setenv(backends.VARIABLE, name)
        return use_backend(None if by_variable else name)

    with force('cpu'):
        attend()
    assert modules['cpu'].calls == 1
    with force('reference'):
        attend()
    assert modules['cpu'].calls == 1
    with (
        force('triton'),
        pytest.raises(BackendUnavailableError, match="'triton' was asked for, but there is no GPU"),
    ):
        attend()
    with force('cpu'), pytest.raises(BackendUnavailableError, match=r'not torch\.float64; the back end reference does'):
        attend(torch.float64)
    assert modules['cpu'].calls == 1


def test_a_back_end_that_fails_is_not_replaced_by_another(modules, monkeypatch):
    def fail(*arguments):
        raise RuntimeError('the kernel has failed')

    monkeypatch.setattr(modules['cpu'], 'forward', fail)
    with pytest.raises(RuntimeError, match='the kernel has failed'):
        attend()


def test_forcing_ends_with_its_block_and_holds_in_other_threads(modules):
    with use_backend('reference'):
        with pytest.raises(KeyError), use_backend('cpu'):
            raise KeyError
        threads = [threading.Thread(target=attend) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert modules['cpu'].calls == 0
    attend()
    assert modules['cpu'].calls == 1


def test_unknown_back_ends(monkeypatch):
    with pytest.raises(ValueError, match="name: expected one of reference, cpu, numba, cuda, triton, found 'gpu'"):
        use_backend('gpu').__enter__()
    monkeypatch.setenv(backends.VARIABLE, 'fast')
    with pytest.raises(ValueError, match=f"{backends.VARIABLE}: expected one of .*, found 'fast'"):
        attend()


def test_devices_that_differ():
    case = make_inputs()
    with pytest.raises(ValueError, match='sampling_locations: expected device cpu, that of value, found meta'):
        operator.check(case.value, case.spatial_shapes, case.sampling_locations.to('meta'), case.attention_weights)
