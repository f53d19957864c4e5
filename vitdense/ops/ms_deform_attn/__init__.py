"""Multi-scale deformable attention (Deformable DETR, arXiv:2010.04159): one operator, four back ends."""

from .backends import BACKENDS, BackendUnavailableError, use_backend
from .module import MSDeformAttn
from .operator import DECOMPOSITIONS, ms_deform_attn

__all__ = ['BACKENDS', 'DECOMPOSITIONS', 'BackendUnavailableError', 'MSDeformAttn', 'ms_deform_attn', 'use_backend']
