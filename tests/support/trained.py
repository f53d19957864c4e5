"""Work dirs as a training leaves them, of the small models, whose weights are drawn."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from .small import CLASSES, make_data, write_config


def work_dir(kind: str, home: Path) -> Path:
    """A work dir with a config and ``best.pth``; the data are in ``home / 'data'``."""
    if not (home / 'data').exists():
        make_data(home / 'data')
    folder = home / kind
    folder.mkdir()
    cfg = Config.fromfile(write_config(kind, folder / f'{kind}.py', home / 'data'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    undecided(model)
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=[(200, 0, 0), (0, 0, 200)]), epoch=1, iter=1)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'best.pth')
    return folder


def undecided(model: nn.Module) -> None:
    """Let a classifier find something: its scores spread around a half."""
    for name, parameter in model.named_parameters():
        if name.endswith(('retina_cls.bias', 'fc_cls.bias')):
            nn.init.zeros_(parameter)
        elif name.endswith(('retina_cls.weight', 'fc_cls.weight', 'conv_seg.weight')):
            nn.init.normal_(parameter, std=0.2)
