"""The flow of a model: image -> backbones -> necks -> heads."""

from vitdense.models import backbones

__all__ = ['backbones']
