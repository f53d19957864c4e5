"""Test-time augmentation: views of each test image, and what merges their predictions."""

from mmengine.config import Config, ConfigDict

from vitdense.config.datasets import leaf_datasets
from vitdense.config.known_keys import resolve
from vitdense.registry import bare_type

RATIOS = (0.75, 1.0, 1.25)
"""Sizes of the views against the size of the test, each as it is and flipped."""

MODELS = {
    'mmdet': dict(type='vitdense.DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.6), max_per_img=100)),
    'mmseg': dict(type='mmseg.SegTTAModel'),
}
"""What merges the views where a config does not say it, by the package of the model."""


def use_tta(cfg: Config) -> None:
    """Test with the config's ``tta_model`` and ``tta_pipeline``; what it lacks is made from its test.

    Raises:
        ValueError: the model is of neither mmdet nor mmseg, or its test does not end in their ``Pack...Inputs``.
    """
    package = package_of(cfg)
    missing = [key for key in ('tta_model', 'tta_pipeline') if not cfg.get(key)]
    if package not in MODELS and missing:
        raise ValueError(
            f'--tta: the config has no {" and no ".join(missing)}, and the model {bare_type(cfg.model)!r} is of '
            'neither mmdet nor mmseg'
        )
    model = ConfigDict(cfg.get('tta_model') or MODELS[package])
    if bare_type(model) == 'DetTTAModel':
        model.type = 'vitdense.DetTTAModel'
    for key, leaf in leaf_datasets(cfg, 'test'):
        leaf.pipeline = cfg.get('tta_pipeline') or views(leaf.get('pipeline') or [], package, key)
    model.module = cfg.model
    cfg.model = model


def package_of(cfg: Config) -> str:
    """'mmdet' or 'mmseg', the package whose data samples the model works with; its own package for others."""
    scope, kind = cfg.get('default_scope'), cfg.model.get('type')
    kind = resolve(kind, scope or 'mmengine') if isinstance(kind, str) else kind
    package = getattr(kind, '__module__', '').split('.')[0]
    return scope if package not in MODELS and scope in MODELS else package


def views(pipeline: list[ConfigDict], package: str, key: str = 'test_dataloader.dataset') -> list[dict]:
    """A test pipeline whose images are tested in three sizes, each as it is and flipped.

    Args:
        pipeline: that of the test; its steps keep their order, only that annotations are loaded after the flip, which
            they do not know of.
        package: 'mmdet' or 'mmseg'.
        key: of the data set, for errors.

    Raises:
        ValueError: the pipeline does not end in ``PackDetInputs`` or ``PackSegInputs``.
    """
    if not pipeline or bare_type(pipeline[-1]) not in ('PackDetInputs', 'PackSegInputs'):
        found = bare_type(pipeline[-1]) if pipeline else 'nothing'
        raise ValueError(
            f'--tta: {key}.pipeline ends in {found}, expected PackDetInputs or PackSegInputs; tta_pipeline of the '
            'config says it otherwise'
        )
    *steps, pack = (dict(step) for step in pipeline)
    if 'meta_keys' in pack:
        pack['meta_keys'] = (*dict.fromkeys((*pack['meta_keys'], 'flip', 'flip_direction')),)
    labels = [step for step in steps if 'LoadAnnotations' in bare_type(step)]
    steps = [step for step in steps if step not in labels]
    place = next((i for i, step in enumerate(steps) if 'Resize' in bare_type(step)), None)
    if place is None:
        place = sum(bare_type(step).startswith('Load') for step in steps)
        sizes = [dict(type=f'{package}.Resize', scale_factor=ratio, keep_ratio=True) for ratio in RATIOS]
        after = steps[place:]
    else:
        sizes = [_resized(steps[place], ratio) for ratio in RATIOS]
        after = steps[place + 1 :]
    flips = [dict(type=f'{package}.RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)]
    rest = [[step] for step in (*after, *labels, pack)]
    return [*steps[:place], dict(type='TestTimeAug', transforms=[sizes, flips, *rest])]


def _resized(step: dict, ratio: float) -> dict:
    """A step that resizes, to another size."""
    step = dict(step)
    for name in ('scale', 'scale_factor'):
        value = step.get(name)
        if isinstance(value, list | tuple):
            step[name] = tuple(round(ratio * side) if name == 'scale' else ratio * side for side in value)
        elif isinstance(value, int | float):
            step[name] = round(ratio * value) if name == 'scale' else ratio * value
    return step
