"""``tools/get_flops.py``: parameters and floating-point operations, counted as the papers' tables count them."""

import argparse

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from vitdense.benchmark.complexity import Complexity, complexity_of
from vitdense.commands.prepare import describe_run
from vitdense.config.building import building
from vitdense.config.load import load_config
from vitdense.config.settle import settle


def run(args: argparse.Namespace) -> None:
    """Print the counts of the model of a config."""
    cfg = load_config(args.config)
    settle(cfg)
    describe_run(cfg, ())
    result = complexity(cfg, tuple(args.shape))
    print(f'parameters  {result.parameters / 1e6:.2f} M')
    print(f'FLOPs       {result.flops / 1e9:.2f} G, of which attention {result.attention_flops / 1e9:.2f} G')


def complexity(cfg: Config, hw: tuple[int, int]) -> Complexity:
    """Count the model of ``cfg`` on one image of ``hw`` pixels, see :func:`complexity_of`."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with building(cfg):
        model = MODELS.build(cfg.model).eval().requires_grad_(False)  # parameters as arguments confuse the counter
    return complexity_of(model, hw)
