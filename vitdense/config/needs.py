"""What a model wants beside pictures, as its pipelines show."""

from collections.abc import Sequence

from mmengine.config import ConfigDict

from vitdense.registry import bare_type

LOADERS = ('LoadImageFromFile', 'LoadImageFromNDArray', 'LoadImageFromWebcam', 'InferencerLoader')
"""What loads a picture."""

OTHERS = {
    'PackTrackInputs': 'follows objects through videos',
    'PackReIDInputs': 'tells whether objects are the same',
    'LoadDepthAnnotation': 'estimates depths',
}
"""Steps of models that find neither objects nor classes in single pictures."""

TEXTS = {'text', 'texts', 'caption', 'custom_entities'}
"""Keys by which a pipeline hands texts on."""


def more_than_pictures(steps: Sequence[ConfigDict]) -> str:
    """The step that shows it, and what it is; empty where pictures, and what is found in them, are enough."""
    for step in steps:
        kind = bare_type(step)
        if kind in OTHERS:
            return f'has {kind}: the model {OTHERS[kind]}'
        if kind.startswith('Load') and kind not in LOADERS and 'Annotation' not in kind:
            return f'has {kind}, expected {LOADERS[0]}'
    return ''


def wants_texts(steps: Sequence[ConfigDict]) -> str:
    """The key by which a text is handed on; empty where none is."""
    keys = {key for step in steps if isinstance(step, dict) for key in step.get('meta_keys') or ()}
    return min(TEXTS & keys, default='')
