"""The processor of this machine."""

import platform
from functools import cache
from pathlib import Path


@cache
def processor_name() -> str:
    """As its maker calls it."""
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(': ')[1] for line in lines if line.startswith('model name')), platform.processor())
