"""Two processes train as one does on the images of both, whatever each of them has, and end where one is gone."""

import math
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from support.families import COUNTS, FAMILIES, Drawn, Trained, train
from support.processes import in_two_processes

from vitdense.checks import Run, check
from vitdense.commands.errors import is_of_a_peer
from vitdense.engine.hooks import GlobalLossHook
from vitdense.engine.hooks.invalid_loss import INVALID
from vitdense.engine.processes import join, leave

EQUAL: dict[str, dict] = {
    'DETR': {},
    'Deformable DETR': dict(exact=True),  # bilinear sampling has kinks, where float32's rounding decides of a gradient
    'YOLOS': {},
    'RetinaNet': {},
    'Mask R-CNN': dict(exact=True),  # so has RoIAlign
    'SETR': {},
    'Semantic FPN': dict(
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.05),
            clip_grad=dict(max_norm=2.0),
            accumulative_counts=3,  # of 8 steps
        )
    ),
}


def work(folder: Path) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    join(Config(), 'pytorch')
    for family, settings in EQUAL.items():
        torch.save(train(family, folder, batch_size=2, launcher='pytorch', **settings), saved(folder, family))
    torch.save(sharded_steps(), saved(folder, 'sharded'))
    torch.save(invalid_step(), saved(folder, 'invalid'))
    torch.distributed.barrier()
    leave()
    for kind, timeout in {'hangs': 4, 'is gone': 60}.items():
        rank, meeting = int(os.environ['RANK']), f'file://{folder}/{kind}'  # a port may still be that of those before
        settings = dict(backend='nccl', timeout=timeout, init_method=meeting, rank=rank, world_size=2)
        join(Config(dict(env_cfg=dict(dist_cfg=settings))), 'pytorch')
        exchange()
        if get_rank() == 1:
            time.sleep(10 if kind == 'hangs' else 1)  # the others have what was exchanged before
            if kind == 'is gone':
                os._exit(0)
        start = time.monotonic()
        try:
            exchange()
        except Exception as error:
            torch.save((is_of_a_peer(error), time.monotonic() - start, str(error)), saved(folder, kind))
        leave()


def saved(folder: Path, name: str, rank: int | None = None) -> Path:
    return folder / f'{name} {get_rank() if rank is None else rank}.pt'


def exchange() -> None:
    torch.distributed.all_reduce(torch.ones(1))


@pytest.fixture(scope='module')
def of_two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('two')
    in_two_processes(work, folder)
    return folder


def load(folder: Path, name: str, rank: int = 0) -> Any:
    return torch.load(saved(folder, name, rank), weights_only=False)


@pytest.mark.slow
@pytest.mark.parametrize('family', EQUAL)
def test_losses_and_weights_of_two_processes_are_those_of_one(family, of_two, tmp_path):
    """Image by image, every other one goes to the second process: 0, 0, 5 and 1 objects, against 3, 1, 2 and 0."""
    one, two = train(family, tmp_path, **EQUAL[family]), Trained(*load(of_two, family))
    moved = max((one.after[key] - one.before[key]).abs().max() for key in one.after if key.endswith('weight'))
    assert moved > 0.01
    for name, before in one.before.items():
        assert torch.equal(before, two.before[name]), name
        torch.testing.assert_close(two.after[name], one.after[name], rtol=1e-6, atol=1e-6, msg=name)
    for alone, together in zip(one.steps, two.steps, strict=True):
        assert together == pytest.approx(alone, rel=1e-6, abs=1e-6)
    other = Trained(*load(of_two, family, rank=1))
    assert other.steps == two.steps
    assert all(torch.equal(other.after[name], value) for name, value in two.after.items() if 'running' not in name)


def model() -> BaseModel:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(FAMILIES['YOLOS'])).train()


def step(model: BaseModel, images: list[int]) -> None:
    data = Drawn(COUNTS, maps=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-4)
    model.train_step(pseudo_collate([data[i] for i in images]), OptimWrapper(optimizer, clip_grad=dict(max_norm=1.0)))


def sharded_steps() -> dict[str, torch.Tensor]:
    """Weights after a step of a model of which each process has a part."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh, yolos = init_device_mesh('cpu', (2,)), model()
    for block in yolos.get_submodule('backbone').blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(yolos, mesh=mesh)
    step(yolos, [get_rank(), 2 + get_rank()])
    weights = {name: p.full_tensor() for name, p in yolos.named_parameters()}
    assert sum(p.to_local().numel() for p in yolos.parameters()) < 0.6 * sum(p.numel() for p in yolos.parameters())
    return weights


@pytest.mark.slow
def test_a_model_that_pytorch_shards_trains_as_well(of_two):
    alone, found = model(), load(of_two, 'sharded')
    before = {name: p.detach().clone() for name, p in alone.named_parameters()}
    step(alone, [0, 1, 2, 3])
    assert before.keys() == found.keys()
    for name, p in alone.named_parameters():
        torch.testing.assert_close(found[name], p.detach(), rtol=1e-6, atol=1e-6, msg=name)
    assert max((found[name] - p).abs().max() for name, p in before.items()) > 5e-4


def invalid_step() -> tuple[dict, list[str]]:
    """What a process knows after a step in which the second one has a loss that is not a number."""
    outputs = dict(loss=torch.tensor(float('nan') if get_rank() else 2.0), loss_cls=torch.tensor(float(get_rank())))
    batch = dict(data_samples=[Drawn(COUNTS, maps=False)[4 + get_rank()]['data_samples']])
    hub = MessageHub.get_instance('invalid')
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), message_hub=hub)
    GlobalLossHook().after_train_iter(runner, 0, batch, outputs)
    return {name: value.item() for name, value in outputs.items()}, hub.get_info(INVALID)


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_all_processes_know_whose_loss_is_not_a_number(rank, of_two):
    losses, images = load(of_two, 'invalid', rank)
    assert math.isnan(losses['loss'])
    assert losses['loss_cls'] == 0.5
    assert images == ['5 (5.jpg)']


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others_after_the_timeout(of_two):
    of_a_peer, seconds, message = load(of_two, 'hangs')
    assert of_a_peer
    assert 3 < seconds < 9
    assert 'timed out' in message.lower()


@pytest.mark.slow
def test_a_process_that_is_gone_ends_the_others_at_once(of_two):
    of_a_peer, seconds, message = load(of_two, 'is gone')
    assert of_a_peer
    assert seconds < 30
    assert 'timed out' not in message.lower()


def test_the_runner_has_no_checkpoints_of_shards():
    cfg = Config(dict(default_scope='mmdet', model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')))
    [finding] = [
        one for one in check(Run(cfg, (), processes=2), 'config') if one.kind == 'model sharded over processes'
    ]
    assert 'model_wrapper_cfg.type: MMFullyShardedDataParallel' in str(finding)
    cfg.model_wrapper_cfg.type = 'MMDistributedDataParallel'
    assert not [one for one in check(Run(cfg, (), processes=2), 'config') if 'sharded' in one.kind]
