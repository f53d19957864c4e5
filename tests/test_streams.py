"""Outputs of a command whose terminal, reader or disk is gone: it goes on, and its exit code is its own."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

WRITES = """
import logging, sys
from vitdense.streams import outlast
outlast()
logging.basicConfig(stream=sys.stderr, format='%(message)s')
print('before', flush=True)
sys.stdin.read()
for number in range(3):
    print('after')
    logging.error('after')
open(sys.argv[1], 'w').write('done')
print('at the end')
"""

CLOSED = """
import sys
from vitdense.streams import outlast
outlast()
with open(sys.argv[1], 'w') as file:
    print('to nobody', flush=True)
    print('to nobody', file=sys.stderr)
    sys.stdin.read()
    file.write('done')
"""


@pytest.mark.parametrize('kind', ['terminal', 'pipe', 'full disk'])
def test_a_command_outlasts_them(kind, tmp_path):
    if kind == 'full disk':
        side, main = os.open('/dev/full', os.O_WRONLY), None
    else:
        main, side = pty.openpty() if kind == 'terminal' else os.pipe()
    done = tmp_path / 'done'
    command = [sys.executable, '-c', WRITES, str(done)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=side, stderr=side, cwd=ROOT) as process:
        os.close(side)
        if main is not None:
            assert os.read(main, 100).split() == [b'before']
            os.close(main)
        process.communicate(timeout=60)
    assert (process.returncode, done.read_text()) == (0, 'done')


def test_descriptors_that_are_closed_are_no_files_of_its_own(tmp_path):
    done = tmp_path / 'done'
    shell = f'exec {sys.executable} -c "$0" "$1" <&- >&- 2>&-'
    result = subprocess.run(['sh', '-c', shell, CLOSED, done], cwd=ROOT, timeout=60)
    assert (result.returncode, Path(done).read_text()) == (0, 'done')
