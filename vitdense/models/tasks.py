"""What a built model of mmdet or mmseg predicts."""

from torch import nn

from vitdense.models.wrappers import unwrap_model

DETECTION = 'detection'
INSTANCES = 'instance segmentation'
PANOPTIC = 'panoptic segmentation'
SEMANTIC = 'semantic segmentation'


def task_of(model: nn.Module) -> str:
    """Its task, one of the constants of this module."""
    model = unwrap_model(model)
    if any(kind.__module__.startswith('mmseg.') for kind in type(model).__mro__):
        return SEMANTIC
    fusion = getattr(model, 'panoptic_fusion_head', None)
    if fusion is not None and (getattr(fusion, 'test_cfg', None) or {}).get('panoptic_on', True):
        return PANOPTIC
    return INSTANCES if has_masks(model) else DETECTION


def has_masks(model: nn.Module) -> bool:
    """Whether a detector of mmdet or vitdense has modules for masks, which are named for them."""
    return any('mask' in f'{name} {type(module).__name__}'.lower() for name, module in model.named_modules())
