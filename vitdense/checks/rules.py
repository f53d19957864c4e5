"""How a rule is written, and how the rules are asked."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from vitdense.findings import Finding, declare

from .run import Run

STAGES = ('parts', 'config', 'data', 'model')
"""What a rule needs: a config of whatever form; one that has all parts; the scan of the data as well; or the model and
the loaders as well."""


class Case(NamedTuple):
    """What a rule found, see :class:`~vitdense.findings.Finding`; ``expected`` and ``remedy`` where it knows better."""

    where: str
    found: str
    expected: str = ''
    remedy: str = ''


Test = Callable[[Run], Iterator[Case]]
CHECKS: list[tuple[str, str, bool, Test]] = []
"""Stage, name, whether a run stops for it, and function of each rule."""


def rule(
    name: str, *, looks_at: str, expected: str, remedy: str = '', fatal: bool = True, needs: str = 'config'
) -> Callable[[Test], Test]:
    """Make a rule of a function that yields its cases; the arguments are those of :class:`~vitdense.findings.Rule`.

    Raises:
        ValueError: ``needs`` is none of ``STAGES``, or there is a rule of this ``name``.
    """
    if needs not in STAGES:
        raise ValueError(f'the rule {name!r} needs {needs!r}, expected one of {STAGES}')
    declare(name, looks_at, expected, remedy, fatal)

    def add(test: Test) -> Test:
        CHECKS.append((needs, name, fatal, test))
        return test

    return add


def check(run: Run, stage: str) -> list[Finding]:
    """What the rules of a stage find."""
    return [
        Finding(name, case.where, case.found, fatal, expected=case.expected, remedy=case.remedy)
        for needs, name, fatal, test in CHECKS
        if needs == stage
        for case in test(run)
    ]
