"""The commands of docs/distributed.md: launchers and tools take their options, and a config takes those settings."""

import re
import shlex

import pytest
from support import CONFIGS, ROOT
from torch.distributed.run import get_args_parser

from vitdense.commands import parser_of
from vitdense.commands.train import set_options
from vitdense.config.runtime import read_config

QUICKSTART = str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py')
BLOCKS = re.findall(r'```sh\n(.*?)```', (ROOT / 'docs/distributed.md').read_text(), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize('command', COMMANDS)
def test_commands(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    launcher, _, options = command.replace('CONFIG', QUICKSTART).partition('vitdense train ')
    args = parser_of('train').parse_args(shlex.split(options))
    program, *settings = shlex.split(launcher) or ['none']
    assert args.launcher == {'torchrun': 'pytorch', 'srun': 'slurm', 'mpirun': 'mpi'}.get(program, 'none')
    if program == 'torchrun':
        found = get_args_parser().parse_args([*settings, 'vitdense'])
        assert found.module
        assert int(found.nproc_per_node) > 1
    cfg = read_config(args)
    set_options(cfg, args)
    for key, value in args.cfg_options.items() if args.cfg_options else []:
        node = cfg
        for part in key.split('.'):
            node = node[part]
        assert node == value


def test_there_is_a_command_for_each_launcher():
    programs = {shlex.split(command)[0] for command in COMMANDS}
    assert programs == {'torchrun', 'srun', 'mpirun', 'vitdense'}
