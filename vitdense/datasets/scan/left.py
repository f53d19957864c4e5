"""What is left of a data set to train on or to evaluate, and why the rest is not."""

from vitdense.findings import Finding

from . import rules
from .report import SplitReport
from .resolve import Leaf

OTHERS = 'of other classes'
FAULTY = 'with a fault, or in an image with one'


def check_left(leaf: Leaf, report: SplitReport, images: int, annotations: int, lost: dict[str, int]) -> list[Finding]:
    """A fault if nothing is left, a remark if half of the annotations of the classes are no objects.

    Args:
        report: with the images and objects that are used.
        images, annotations: numbers of what the data set has.
        lost: reason -> annotations that are no objects for it.
    """
    where = report.ann_file or leaf.key
    objects = sum(count for _, count in report.per_class.values())
    why = ', '.join(f'{number} {reason}' for reason, number in lost.items() if number)
    given = f'there are {images} images and {annotations} annotations' + (f': {why}' if why else '')
    if not report.images:
        rule = '' if leaf.dataset.test_mode else f'; filter_cfg is {leaf.dataset.filter_cfg}'
        return [Finding(rules.EMPTY, where, f'no image is left: {given}{rule}')]
    if not objects and not leaf.is_test:
        return [Finding(rules.EMPTY, where, f'no object of the classes is left: {given}', report.trains)]
    lost = {reason: number for reason, number in lost.items() if number and reason not in (OTHERS, FAULTY)}
    gone = sum(lost.values())
    if gone and gone >= objects:
        why = ', '.join(f'{number} {reason}' for reason, number in lost.items())
        return [Finding(rules.LOST, where, f'{gone} of {gone + objects}: {why}', False)]
    return []
