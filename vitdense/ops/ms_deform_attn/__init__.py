"""Multi-scale deformable attention (Deformable DETR, arXiv:2010.04159): one operator, four back ends."""

from .backends import BACKENDS, BackendUnavailableError, use_backend
from .kernel import DECOMPOSITIONS, ms_deform_attn
from .module import MSDeformAttn

__all__ = ['BACKENDS', 'DECOMPOSITIONS', 'BackendUnavailableError', 'MSDeformAttn', 'ms_deform_attn', 'use_backend']
