"""A command that is no training ends at a signal, without a traceback, with the exit code that shells have."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from vitdense import commands, signals
from vitdense.signals import ENDING, Signals, interrupt


@pytest.fixture
def ended(monkeypatch, capfd):
    """Runs something as a command; its exit code, and what it printed to stderr."""

    def run(what) -> tuple[int, str]:
        monkeypatch.setattr(commands, 'run', lambda command, args: what())
        monkeypatch.setattr(commands, 'parser_of', lambda *names: SimpleNamespace(parse_args=parse))
        monkeypatch.setattr(signals, 'HANGUP', None)  # the tests may run under nohup
        before = [signal.getsignal(number) for number in ENDING]
        with pytest.raises(SystemExit) as raised:
            commands.main('predict')
        assert [signal.getsignal(number) for number in ENDING] == before
        return raised.value.code, capfd.readouterr().err

    def parse(arguments) -> SimpleNamespace:
        return SimpleNamespace(traceback=False)

    return run


def kill(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)


@pytest.mark.parametrize(
    ('number', 'code', 'said'),
    [
        (signal.SIGTERM, 143, 'ended by SIGTERM\n'),
        (signal.SIGINT, 130, 'interrupted\n'),
        (signal.SIGHUP, 129, 'ended by SIGHUP\n'),
    ],
)
def test_a_command_ends(number, code, said, ended, tmp_path):
    def work():
        try:
            kill(number)
        finally:
            (tmp_path / 'cleaned').touch()

    assert ended(work) == (code, said)
    assert (tmp_path / 'cleaned').exists()


def test_what_catches_everything_does_not_keep_it_from_ending(ended):
    """Some packages do so while they are imported."""

    def work():
        with suppress(BaseException):
            kill(signal.SIGTERM)

    assert ended(work)[0] == 143


def test_what_the_signal_did_to_others_is_no_error_of_its_own(ended):
    def work():
        try:
            kill(signal.SIGTERM)
        except SystemExit:
            raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Terminated.') from None

    assert ended(work) == (143, 'ended by SIGTERM\nended by SIGTERM (RuntimeError)\n')


def test_an_error_without_a_signal_has_its_traceback(ended):
    with pytest.raises(ZeroDivisionError):
        ended(lambda: 1 / 0)


def test_in_another_thread_signals_are_left_alone():
    found = []

    def work():
        before = signal.getsignal(signal.SIGTERM)
        with Signals(interrupt):
            found.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]
