"""The flow of a model: image -> backbones -> necks -> heads."""

from vitdense.models import backbones, heads, necks

__all__ = ['backbones', 'heads', 'necks']
