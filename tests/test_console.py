"""The console of a real terminal."""

import logging
import os
import pty
import subprocess
import sys

import pytest
from mmengine.logging import MMLogger
from support import ROOT

from vitdense.console import quiet_console

SCRIPT = """
import time
from types import SimpleNamespace
import vitdense.engine  # within it stdout is another
from vitdense.console import CONSOLE
from vitdense.engine.hooks import ProgressHook
hook = ProgressHook()
runner = SimpleNamespace(test_dataloader=[0] * 3)
hook.before_run(runner)
hook.before_test(runner)
print('bar' if hook.bar else 'lines', CONSOLE.width, flush=True)
hook.after_test_iter(runner, 2)
time.sleep(0.3)
hook.after_run(runner)
"""


def output(terminal: bool, **env: str) -> str:
    """What a process writes to a terminal of 100 columns, or to a pipe."""
    settings = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '100', 'TERM': 'xterm', **env}
    command = [sys.executable, '-c', SCRIPT]
    if not terminal:
        return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120).stdout
    main, side = pty.openpty()
    with subprocess.Popen(command, env=settings, stdout=side, stderr=side, stdin=side) as process:
        os.close(side)
        chunks = []
        while True:
            try:
                chunk = os.read(main, 4096)
            except OSError:  # how Linux says that the other side is closed
                break
            if not chunk:
                break
            chunks.append(chunk)
        assert process.wait() == 0, b''.join(chunks).decode()
    os.close(main)
    return b''.join(chunks).decode()


@pytest.mark.slow
def test_a_terminal_has_a_bar_of_its_width():
    shown = output(True)
    assert 'bar 100' in shown
    assert '3/3' in shown
    assert '\x1b[?25h' in shown, 'the cursor is there again'


@pytest.mark.slow
def test_a_pipe_and_a_plain_terminal_have_lines():
    assert output(False).splitlines()[-1] == 'lines 160'
    assert 'lines' in output(True, TERM='dumb')


@pytest.mark.slow
def test_what_reads_the_console_may_end():
    """As ``| head -1`` does: the run goes on."""
    lines = [
        'from vitdense.console import CONSOLE',
        'for i in range(2000): CONSOLE.print(i)',
        "open('/dev/stderr', 'w').write('done')",
    ]
    settings = {**os.environ, 'PYTHONPATH': str(ROOT)}
    writer = subprocess.Popen(
        [sys.executable, '-c', '\n'.join(lines)],
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout.readline() == '0\n'
    writer.stdout.close()
    assert writer.stderr.read() == 'done'
    assert writer.wait() == 0


def test_a_log_file_that_cannot_be_written_is_told_once(tmp_path, capsys):
    logger = MMLogger.get_instance(f'full {tmp_path}', log_file=str(tmp_path / 'a.log'))
    quiet_console(logger)
    [handler] = [one for one in logger.handlers if isinstance(one, logging.FileHandler)]
    handler.stream = open('/dev/full', 'w')  # noqa: SIM115
    for _ in range(3):
        logger.info('a step')
    handler.stream = None
    out, err = capsys.readouterr()
    assert out.count('a.log lacks what follows: [Errno 28] No space left on device') == 1
    assert (out.count('\n'), err) == (1, '')
