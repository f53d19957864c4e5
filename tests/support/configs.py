"""Models of configs."""

from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from support import CONFIGS
from vitdense.config.load import load_config


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
