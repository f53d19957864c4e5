"""``vitdense COMMAND``: the overview, and one way for all commands to answer."""

import subprocess
import sys

import pytest

from vitdense import commands
from vitdense.commands import COMMANDS
from vitdense.version import __version__


def run(*line: str, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        commands.cli(line)
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def test_the_overview_has_a_line_about_each_command(capsys):
    code, out, _ = run('--help', capsys=capsys)
    assert code == 0
    for command in COMMANDS:
        [line] = [line for line in out.splitlines() if line.split()[:1] == [command]]
        assert len(line.split()) > 3
    assert run('--version', capsys=capsys)[1].strip() == __version__


@pytest.mark.parametrize('command', COMMANDS)
def test_help_of_each_command_names_it(command, capsys):
    code, out, _ = run(command, '--help', capsys=capsys)
    assert code == 0
    assert out.startswith(f'usage: vitdense {command} ')


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ([], 'error: expected a command, one of train, test, '),
        (['trian'], "error: unknown command 'trian': did you mean 'train'?"),
        (['--helq'], 'error: '),
        (['train', 'none.py'], "error: no config 'none.py'"),
        (['train'], 'error: the following arguments are required: config'),
        (['test', 'none.py', '--chekc', 'off'], 'error: '),
    ],
)
def test_errors_are_a_line_or_two(line, message, capsys):
    code, _, error = run(*line, capsys=capsys)
    assert code == 2
    assert error.startswith(message)
    assert len(error.splitlines()) <= 2


def test_python_m_vitdense():
    result = subprocess.run([sys.executable, '-m', 'vitdense', '--version'], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == __version__
