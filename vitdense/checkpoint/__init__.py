"""Loading of published weights: foreign layouts, tables that depend on the image size, and the report."""

from .pretrained import Pretrained

__all__ = ['Pretrained']
