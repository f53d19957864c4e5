"""How a process joins those of its launcher where there is no GPU."""

import os
import socket
from datetime import timedelta

import pytest
import torch
from mmengine.config import Config

from vitdense.engine import processes
from vitdense.engine.processes import join, leave, tell_environment, wrapper_on_cpus
from vitdense.models.layers.fast import products

SLURM = dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0', SLURM_NODELIST='node[3-4]')
MPI = dict(OMPI_COMM_WORLD_RANK='1', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='1')


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Of a process that no launcher has started, on a machine whose Slurm knows the names of the nodes."""
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', *SLURM, *MPI):
        monkeypatch.setenv(name, '')  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[3-4]" ] && printf "localhost\\nnode4\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)


def start(monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_process_of_slurm_joins_over_gloo_with_the_timeout_of_the_config(monkeypatch):
    start(monkeypatch, SLURM)
    seen = {}

    def init(original=torch.distributed.init_process_group, **settings):
        seen.update(settings)
        original(**settings)

    monkeypatch.setattr(torch.distributed, 'init_process_group', init)
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    cfg = Config(dict(env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=20, port=port))))
    join(cfg, 'slurm')
    try:
        assert torch.distributed.get_backend() == 'gloo'
        assert seen == dict(backend='gloo', timeout=timedelta(seconds=20))
        assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == ('localhost', str(port))
    finally:
        leave()
    assert not torch.distributed.is_initialized()


def test_all_processes_take_the_library_that_the_main_one_chooses(monkeypatch):
    def broadcast(outcome):
        outcome[0] = frozenset({'forward wide'})

    monkeypatch.setattr(products, '_choice', None)
    monkeypatch.setattr(products, 'choose', pytest.fail)
    monkeypatch.setattr(processes, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(processes, 'is_main_process', lambda: False)
    monkeypatch.setattr(processes, 'broadcast_object_list', broadcast)
    processes.agree_on_products()
    assert products.by_onednn(4096, 256, 256) == (True, False, False)


def test_a_library_that_does_not_exist_ends_a_run_at_its_start(monkeypatch):
    monkeypatch.setattr(products, '_choice', None)
    monkeypatch.setattr(processes, 'get_device', lambda: 'cpu')
    monkeypatch.setenv(products.VARIABLE, 'mkl')
    with pytest.raises(ValueError, match=r"^VITDENSE_PRODUCTS: expected pytorch or onednn, found 'mkl'$"):
        processes.agree_on_products()


def test_variables_of_mpi(monkeypatch):
    start(monkeypatch, MPI)
    tell_environment('mpi')
    assert [os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')] == ['1', '4', '1']
    assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == ('localhost', str(processes.PORT))


@pytest.mark.parametrize(
    ('launcher', 'message'),
    [('pytorch', 'RANK .* torchrun'), ('slurm', 'SLURM_PROCID .* srun'), ('mpi', 'OMPI_COMM_WORLD_RANK .* mpirun')],
)
def test_a_process_that_the_launcher_has_not_started(launcher, message):
    with pytest.raises(ValueError, match=f'--launcher {launcher}: {message}'):
        join(Config(), launcher)


@pytest.mark.parametrize('timeout', ['20s', 0, -5, True, [20]])
def test_a_timeout_that_is_no_number_of_seconds(timeout, monkeypatch):
    start(monkeypatch, SLURM)
    with pytest.raises(ValueError, match=r'env_cfg.dist_cfg.timeout: expected seconds, found '):
        join(Config(dict(env_cfg=dict(dist_cfg=dict(timeout=timeout)))), 'slurm')
    assert not torch.distributed.is_initialized()


def test_the_wrapper_of_a_config_is_kept():
    settings = dict(type='MMDistributedDataParallel', static_graph=True, broadcast_buffers=True)
    assert wrapper_on_cpus(Config(), settings) == dict(settings, device_ids=None, find_unused_parameters=False)
    found = wrapper_on_cpus(Config(dict(find_unused_parameters=True)), None)
    assert found == dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False, find_unused_parameters=True
    )
    assert settings.keys() == {'type', 'static_graph', 'broadcast_buffers'}
