"""What is wrong with a run, in one form: what it is, where, what was found, what was expected, and the remedy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

SHOWN = 5
"""Cases of a kind that a message lists."""


@dataclass(frozen=True)
class Rule:
    """Something that a run, its config or its data can have wrong.

    Attributes:
        name: what is wrong, as a noun.
        looks_at: files and keys that it compares.
        expected: what should be there.
        remedy: what to do about it, as a sentence without a full stop.
        fatal: whether a run stops for it; else it is a remark. A finding may be milder than its rule.
    """

    name: str
    looks_at: str
    expected: str
    remedy: str
    fatal: bool = True


RULES: dict[str, Rule] = {}
"""All rules by their names, in the order in which they were declared."""


def declare(name: str, looks_at: str, expected: str, remedy: str, fatal: bool = True) -> str:
    """Add a rule, see :class:`Rule`, and return its name.

    Raises:
        ValueError: there is one of this name.
    """
    if name in RULES:
        raise ValueError(f'the rule {name!r} is declared twice')
    RULES[name] = Rule(name, looks_at, expected, remedy, fatal)
    return name


@dataclass(frozen=True)
class Finding:
    """One case of a rule.

    Attributes:
        kind: name of the rule; findings of a kind are counted together.
        where: key of the config, annotation, image or file, with ids.
        found: what is there.
        fatal: whether a run has to stop for it.
        leave_out: what ``--lenient`` does: 'annotation' or 'image' (left out), 'box' (cut to the image), 'id' (a new
            one), 'area' (of the box), 'flag' (a number), 'classes' (the file gets those of the config) or 'kept' (told
            and left as it is, in a ground truth); empty if it has to be mended by hand.
        index: position of the annotation or image in its file, -1 for others.
        expected, remedy: of this case, where the rule does not say it as well.
    """

    kind: str
    where: str
    found: str
    fatal: bool = True
    leave_out: str = ''
    index: int = -1
    expected: str = ''
    remedy: str = ''

    def __post_init__(self) -> None:
        if self.kind not in RULES:
            raise KeyError(f'{self.kind!r} is no rule; findings.declare adds one')

    def __str__(self) -> str:
        """All of it, in two lines at most."""
        rule = RULES[self.kind]
        return f'{self.kind}: {self.where}: {self.found}; expected {self.expected or rule.expected}' + _advice(
            self.remedy or rule.remedy
        )


class RunError(ValueError):
    """A run that would fail, or learn or measure something wrong in silence."""


def by_kind(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Findings of each kind, in the order in which the kinds first appear."""
    kinds = {finding.kind: i for i, finding in reversed(list(enumerate(findings)))}
    ordered = sorted(findings, key=lambda finding: kinds[finding.kind])
    return {kind: list(group) for kind, group in groupby(ordered, key=lambda finding: finding.kind)}


def describe(findings: Sequence[Finding]) -> list[str]:
    """Lines that count the findings by kind, with the first cases of each and what to do about them."""
    lines = []
    for kind, cases in by_kind(findings).items():
        rule = RULES[kind]
        if len(cases) == 1 and not cases[0].leave_out:
            lines += str(cases[0]).splitlines()
            continue
        lines.append(f'{kind}: {len(cases)}, expected {cases[0].expected or rule.expected}')
        lines += [f'  {case.where}: {case.found}' for case in cases[:SHOWN]]
        if len(cases) > SHOWN:
            lines.append(f'  and {len(cases) - SHOWN} more')
        remedies = dict.fromkeys(case.remedy or rule.remedy for case in cases if not case.leave_out)
        lines += [f'  {remedy}' for remedy in remedies if remedy][:SHOWN]
    return lines


def stop(findings: Iterable[Finding]) -> list[Finding]:
    """Stop for those that are fatal; the others are returned.

    Raises:
        RunError: some are; the message has all of them.
    """
    findings = list(findings)
    fatal = [finding for finding in findings if finding.fatal]
    if fatal:
        raise RunError('\n'.join(describe(fatal)))
    return findings


def _advice(remedy: str) -> str:
    return f'\n  {remedy}' if remedy else ''
