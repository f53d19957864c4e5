"""Do the parts of a run fit together? One function a rule, over one description of the run; docs/checks.md has all."""

from . import (
    arguments,
    batch_norms,
    decode_heads,
    evaluators,
    forms,
    ground_truth,
    heads,
    loaders,
    metrics,
    packages,
    parts,
    recipe,
    schedule,
    segmentation,
    splits,
    weights,
)
from .rules import CHECKS, STAGES, Case, check, rule
from .run import Run, Split

__all__ = [
    'CHECKS',
    'STAGES',
    'Case',
    'Run',
    'Split',
    'arguments',
    'batch_norms',
    'check',
    'decode_heads',
    'evaluators',
    'forms',
    'ground_truth',
    'heads',
    'loaders',
    'metrics',
    'packages',
    'parts',
    'recipe',
    'rule',
    'schedule',
    'segmentation',
    'splits',
    'weights',
]
