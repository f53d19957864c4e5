"""What tests share: places, random weights and inputs, small data sets, a toy run."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
SUPPORT = Path(__file__).parent
