"""What ``--lenient`` may do with the ground truth of a validation or test: nothing that changes its objects."""

from collections.abc import Sequence
from dataclasses import replace

from vitdense.findings import Finding

from . import rules

KEPT = 'kept'
"""``leave_out`` of faults that stay where they are."""

OF_IMAGES = (rules.MISSING_IMAGE, rules.UNREADABLE_IMAGE, rules.WRONG_SIZE, rules.TURNED, rules.TOO_SMALL)
"""Faults for which an evaluation leaves out the picture; in a COCO file its objects stay and count as missed."""

HARMLESS = (rules.EMPTY_BOX, rules.ABSURD, rules.OUTSIDE, rules.BEYOND)
"""Faults of annotations with which an evaluation works; it takes them as they are."""

NOBODYS = (rules.UNKNOWN_IMAGE, rules.UNKNOWN_CATEGORY)
"""Annotations that no evaluation counts."""

NOT_TRUTH = ('id', 'area', 'flag', 'classes')
"""What is mended for an evaluation as well: it is no part of what an object is, where it is, or which there are."""


def keep_truth(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of a COCO file that is evaluated: faults with which no evaluation works are to be mended by hand."""
    return [replace(finding, leave_out=_settle(finding)) for finding in findings]


def _settle(finding: Finding) -> str:
    if finding.fatal and finding.kind in HARMLESS:
        return KEPT
    allowed = finding.leave_out in NOT_TRUTH or finding.kind in (*OF_IMAGES, *NOBODYS)
    return finding.leave_out if allowed else ''
