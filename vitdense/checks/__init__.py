"""Do the parts of a run fit together? One function a rule, over one description of the run; docs/checks.md has all."""

from . import loaders, recipe
from .rules import CHECKS, STAGES, Case, check, rule
from .run import Run, Split

__all__ = ['CHECKS', 'STAGES', 'Case', 'Run', 'Split', 'check', 'loaders', 'recipe', 'rule']
