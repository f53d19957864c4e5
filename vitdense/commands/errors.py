"""How an error ends a command: those that vitdense raises for its users by their message, all others by a traceback."""

import dis
import os
import re
import sys
import time

from vitdense.files import REASONS
from vitdense.untrusted.text import visible

GRACE, GRACE_TOGETHER = 30, 5
"""Seconds that a process waits for the first one, which meets most errors as well, to tell them and end the run; and
those once they have joined, after which they come to the same place at about the same time."""

OF_A_PEER = re.compile(r'\bgloo\b|NCCL|[Cc]onnection (closed|reset) by peer|Timed out waiting')
"""What the errors of an exchange with another process say."""

BUGS = (AssertionError, AttributeError)


def is_for_users(error: BaseException) -> bool:
    """Is the message meant for users?

    It is where a ``raise`` in vitdense ended the call, be it on purpose of a check or of a class that was given what it
    does not take; and where the system refused a file, which its error names, or the disk failed. What goes wrong by
    itself, in vitdense or in any other package, is a bug.
    """
    if isinstance(error, OSError) and (error.filename or error.errno in REASONS):
        return True
    if isinstance(error, BUGS) or error.__traceback__ is None:
        return False
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    raised = dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == 'RAISE_VARARGS'
    return raised and last.tb_frame.f_globals.get('__name__', '').split('.')[0] == 'vitdense'


def is_of_a_peer(error: BaseException) -> bool:
    """Whether an exchange with another process of the run failed, which has ended or does not answer."""
    if not _has_joined() or is_for_users(error):
        return False
    known = isinstance(error, sys.modules['torch'].distributed.DistError)
    return known or (isinstance(error, RuntimeError) and bool(OF_A_PEER.search(str(error))))


def tell_of_peer(error: BaseException) -> None:
    """Say in a line that another process is gone; what happened there is told there."""
    from vitdense.console import to_log_file

    hangs = 'timed out' in str(error).lower()
    what = 'did not answer within env_cfg.dist_cfg.timeout' if hangs else 'has ended, see its message'
    text = f'error: process {os.environ.get("RANK", "?")} ends: another process of this run {what}'
    print(text, file=sys.stderr, flush=True)
    to_log_file(text, error)


def _has_joined() -> bool:
    distributed = sys.modules.get('torch.distributed')
    return bool(distributed and distributed.is_available() and distributed.is_initialized())


def tell(error: Exception) -> None:
    """Print the message of an error that is for users; its traceback goes into the log file, where there is one.

    Of several processes the first one tells. The others wait for what mostly follows: that their launcher ends them.
    """
    try:
        from vitdense.console import is_first_process, to_log_file
    except ImportError:  # where exported models alone are used, rich may be missing
        print(f'error: {visible(str(error))}', file=sys.stderr, flush=True)
        return
    if not is_first_process():
        time.sleep(GRACE_TOGETHER if _has_joined() else GRACE)
    text = error.args[0] if isinstance(error, KeyError) and error.args else error  # a KeyError quotes its text
    print(f'error: {visible(str(text))}', file=sys.stderr, flush=True)
    to_log_file(f'error: {text}', error)
