"""The flow of a model: image -> backbones -> necks -> heads."""

from importlib.util import find_spec

from vitdense.models import backbones, heads, necks

__all__ = ['backbones', 'heads', 'necks']

if find_spec('mmdet'):
    from vitdense.models import test_time as test_time

    __all__.append('test_time')
