"""What ``with_cp='light'`` computes again, in all that may surround it."""

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from vitdense.models.layers.fast.light import recomputed, run_block
from vitdense.models.layers.mlp import Mlp


class Watched(nn.Module):
    """A product, dropout, and a second product that takes two parts of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.then = nn.Linear(4, 6), nn.Linear(3, 4)
        self.types: list[torch.dtype] = []

    def forward(self, x):
        return recomputed(self.expand, self.contract, x)

    def expand(self, x):
        x = self.first(x)
        self.types.append(x.dtype)
        return F.dropout(x.sigmoid(), 0.5)

    def contract(self, x):
        a, b = x.chunk(2, dim=1)
        return self.then(a * b)


@pytest.fixture
def block() -> Watched:
    return Watched()


def gradients(block: nn.Module, with_cp) -> list[torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(5, 4, requires_grad=True)
    y = run_block(block, with_cp, x)
    return torch.autograd.grad(y.float().square().sum(), (x, *block.parameters()))


def same(a, b) -> bool:
    return all(torch.equal(*pair) for pair in zip(a, b, strict=True))


def test_the_first_function_runs_twice_and_the_gradients_are_equal(block):
    plain = gradients(block, False)
    assert len(block.types) == 1
    assert same(gradients(block, 'light'), plain)
    assert len(block.types) == 3


def test_without_gradients_nothing_is_kept(block):
    with torch.no_grad():
        run_block(block, 'light', torch.randn(5, 4))
    assert len(block.types) == 1


def test_the_generator_goes_on_where_it_was(block):
    torch.manual_seed(1)
    loss = run_block(block, 'light', torch.randn(5, 4)).sum()
    state = torch.get_rng_state()
    loss.backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_autocast_is_that_of_the_forward_pass(block):
    results = []
    for with_cp in (False, 'light'):
        torch.manual_seed(1)
        x = torch.randn(5, 4)
        with torch.autocast('cpu', torch.bfloat16):
            y = run_block(block, with_cp, x)
        results.append(torch.autograd.grad(y.float().sum(), block.parameters()))
    assert same(*results)
    assert block.types == [torch.bfloat16] * 3


def test_a_graph_can_be_walked_twice(block):
    torch.manual_seed(1)
    y = run_block(block, 'light', torch.randn(5, 4)).square().sum()
    assert same(*(torch.autograd.grad(y, tuple(block.parameters()), retain_graph=True) for _ in range(2)))


def test_within_a_checkpoint(block):
    plain = gradients(block, False)
    torch.manual_seed(1)
    x = torch.randn(5, 4, requires_grad=True)
    y = checkpoint(lambda x: run_block(block, 'light', x), x, use_reentrant=False)
    assert same(torch.autograd.grad(y.square().sum(), (x, *block.parameters())), plain)


def test_frozen_parameters_and_an_input_without_gradient(block):
    block.first.requires_grad_(False)
    run_block(block, 'light', torch.randn(5, 4)).sum().backward()
    assert block.first.weight.grad is None
    assert block.then.weight.grad.any()


def test_an_error_leaves_later_blocks_alone(block):
    with pytest.raises(RuntimeError):
        run_block(block, 'light', torch.randn(5, 3))
    block.types.clear()
    block(torch.randn(5, 4)).sum().backward()
    assert len(block.types) == 1


def test_data_parallel_processes_reduce_gradients_once(block):
    plain = gradients(block, False)
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(Lightly(block))
        reduced = []
        parallel.register_comm_hook(None, lambda _, bucket: reduced.append(1) or done(bucket.buffer()))
        torch.manual_seed(1)
        parallel(torch.randn(5, 4)).square().sum().backward()
    finally:
        distributed.destroy_process_group()
    assert same([p.grad for p in block.parameters()], plain[1:])
    assert len(reduced) == 1


class Lightly(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x):
        return run_block(self.block, 'light', x)


def done(value: torch.Tensor) -> torch.futures.Future:
    future: torch.futures.Future = torch.futures.Future()
    future.set_result(value)
    return future


@pytest.mark.slow
def test_compiled_models_do_without():
    mlp = Mlp(4, 8)
    x = torch.randn(2, 3, 4)
    compiled = torch.compile(lambda x: run_block(mlp, 'light', x), backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(x), mlp(x))
