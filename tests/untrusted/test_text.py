"""What names of files and classes do to a terminal, a log and a table: nothing."""

import io

import pytest
from mmengine.logging import MMLogger
from rich.table import Table

from vitdense.commands.arguments import parser_of
from vitdense.commands.errors import tell
from vitdense.console import CONSOLE, quiet_console, say, to_log_file, warn
from vitdense.untrusted.text import cell, visible

NAME = 'cat\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202etac\udce9'
SHOWN = 'cat\\x1b[2J\\x1b]0;owned\\x07\\x9b31m\\r\\u202etac\\udce9'


def test_signs_that_a_terminal_obeys_are_written_out():
    assert visible(NAME) == SHOWN
    for text in ('', 'a\tb\nc', 'Straße 猫 🐈 é', '\\x1b', 'عربى'):
        assert visible(text) == text


def test_nothing_that_is_printed_has_them(capsys):
    table = Table(title=NAME)
    table.add_column(NAME)
    table.add_row(NAME)
    CONSOLE.print(NAME, table)
    warn(NAME)
    tell(ValueError(NAME))
    tell(KeyError(NAME))
    with pytest.raises(SystemExit):
        parser_of('predict').parse_args([NAME])
    found = capsys.readouterr()
    assert found.out.count(SHOWN) == 5
    assert found.err.count(SHOWN) >= 2
    for sign in '\x1b\x07\x9b\r\u202e':
        assert sign not in found.out + found.err


def test_nothing_that_is_logged_has_them(tmp_path, capsys, monkeypatch):
    logger = MMLogger.get_instance('untrusted', log_file=str(tmp_path / 'a.log'))
    monkeypatch.setattr('vitdense.console.EARLY', [])
    quiet_console(logger)
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
    say(NAME)
    logger.warning('%s is lost', NAME)
    try:
        raise ValueError(NAME)
    except ValueError as error:
        to_log_file('ended', error)
    for handler in logger.handlers:
        handler.flush()
    text = (tmp_path / 'a.log').read_text()
    assert text.count(SHOWN) == 3
    assert 'Traceback (most recent call last):\n' in text
    assert '\x1b' not in text
    assert capsys.readouterr().out.count(SHOWN) == 2


@pytest.mark.parametrize('name', ['=cmd|" /C calc"!A0', '=HYPERLINK("http://x")', '@SUM(1)', '+1+cmd|x!A', '\t=A(1)'])
def test_cells_call_nothing(name):
    assert cell(name) == f"'{name}"


@pytest.mark.parametrize('name', ['cat', '-1', '+', '=', '-', '@home', 'a=b(c)', 'semi-trailer (large)', ''])
def test_names_are_left_as_they_are(name):
    assert cell(name) == name


def test_table_of_the_classes(tmp_path):
    from vitdense.engine.hooks.evaluation_files import write_per_class
    from vitdense.evaluation.report import EvaluationReport

    class Report(EvaluationReport):
        columns = ['AP']
        per_class = {'=cmd|x!A': {'AP': 0.5}, '-1': {'AP': 1.0}}

        def __init__(self) -> None:
            pass

    write_per_class(tmp_path / 'a.csv', Report())
    assert io.StringIO((tmp_path / 'a.csv').read_text()).read().splitlines() == ['class,AP', "'=cmd|x!A,0.5", '-1,1']
