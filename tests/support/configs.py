"""Our configs, and models of configs."""

import re
from pathlib import Path

from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from support import CONFIGS
from vitdense.config.load import load_config

LEAVES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
"""Configs that are run, relative to the folder of all."""

SIZES = ['ti', 't', 'b0', 's', 'b']


def _size(leaf: str) -> int:
    parts = re.split('[-_]', leaf)
    return next((k for k, size in enumerate(SIZES) if size in parts), len(SIZES))


def _method(leaf: str) -> tuple[Path, str]:
    return Path(leaf).parent, Path(leaf).name.split('_')[0]


METHODS = list({_method(leaf): leaf for leaf in sorted(LEAVES, key=_size, reverse=True)}.values())
"""The smallest config of each folder and method."""


def model_of(leaf: str, **backbone) -> ConfigDict:
    """The model of one of our configs, or of another's (``scope::leaf``), without pretrained weights.

    The scope of the config is the default one from then on. ``backbone`` are settings to replace.
    """
    cfg = load_config(leaf if '::' in leaf else str(CONFIGS / leaf))
    init_default_scope(cfg.default_scope)
    cfg.model.pop('pretrained', None)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.backbone.update(backbone)
    return cfg.model
