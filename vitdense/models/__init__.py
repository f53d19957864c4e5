"""The flow of a model: image -> backbones -> necks -> heads."""

from vitdense.models import backbones, necks

__all__ = ['backbones', 'necks']
