"""Commands in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from . import ROOT

WITHOUT_TORCH = """
import sys
sys.modules['torch'] = None  # an import of it fails
from vitdense.commands import main
main(sys.argv[1], sys.argv[2:])
"""


def without_torch(home: Path, *args: str) -> subprocess.CompletedProcess:
    """Run a command in a process where PyTorch cannot be imported."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '160'}
    command = [sys.executable, '-c', WITHOUT_TORCH, *args]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
