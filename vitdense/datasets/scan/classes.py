"""Class names of a data set against the categories of its file."""

from collections.abc import Mapping, Sequence

from vitdense.findings import Finding
from vitdense.names import listed, nearest

from . import rules


def check_names(classes: object, where: str) -> list[Finding]:
    """Faults of ``metainfo['classes']`` itself."""
    if not isinstance(classes, list | tuple) or not classes or not all(isinstance(name, str) for name in classes):
        example = f', a text; a list of one name is ({classes!r},)' if isinstance(classes, str) else ''
        return [Finding(rules.CLASS_NAMES, where, f'metainfo.classes is {classes!r}{example}')]
    again = sorted({name for name in classes if list(classes).count(name) > 1})
    return [Finding(rules.CLASS_NAMES, where, f'metainfo.classes has {again} more than once')] if again else []


def check_categories(
    classes: Sequence[str], categories: Mapping[str, int], where: str, is_default: bool, order: str
) -> list[Finding]:
    """Compare classes and categories by name.

    Args:
        classes: names in the order of the labels.
        categories: annotations by name, in the order of the file.
        where: the annotation file.
        is_default: whether the config leaves the classes to the data set's type.
        order: what another order means: '' nothing, 'wrong' labels, or 'unknown'.
    """
    findings = []
    missing = [name for name in classes if name not in categories]
    extra = [name for name in categories if name not in classes]
    lists = f'config {shorten(classes)}, file {shorten(list(categories))}'
    if missing:
        hints = {name: nearest(name, extra)[0] for name in missing if extra}
        named = [f'{name!r} (nearest: {hints[name]!r})' if name in hints else repr(name) for name in missing]
        parts = [f'in the config but not in the file: {listed(named, 10)}']
        if extra:
            parts.append(f'in the file but no class of the config: {shorten(extra)}')
        parts.append(lists)
        if is_default:
            parts.append("the config gives no metainfo=dict(classes=(...)), so the data set's own classes count")
        findings.append(Finding(rules.CLASS_NAMES, where, '; '.join(parts), True, 'classes'))
    elif extra:
        number = sum(categories[name] for name in extra)
        message = f'{shorten(extra)} and with {"it" if len(extra) == 1 else "them"} {number} annotations are left out'
        findings.append(Finding(rules.UNUSED_CATEGORY, where, message, False))
    shared = [name for name in classes if name in categories]
    if order and shared != [name for name in categories if name in classes]:
        says = 'labels follow the file here' if order == 'wrong' else 'make sure that labels follow the config here'
        fatal = order == 'wrong'
        findings.append(Finding(rules.CLASS_ORDER, where, f'{lists}; {says}', fatal, 'classes' if fatal else ''))
    return findings


def shorten(names: Sequence[str], most: int = 20) -> str:
    """A list of names, not too long."""
    return f'[{listed([repr(name) for name in names], most)}]'
