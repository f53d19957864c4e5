"""What a scan finds, and how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

SHOWN = 5


class DataError(ValueError):
    """Data that a run would stumble over, or learn from wrongly in silence."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth a remark.

    Attributes:
        kind: what it is; findings of a kind are counted together.
        where: annotation, image or file, with ids.
        message: what was found there, and what was expected.
        fatal: whether a run has to stop for it.
        remedy: what leaves it out: 'annotation', 'image' (removed), 'id' (a new one), 'area' (that of the box) or
            'classes' (the file gets those of the config); empty if nothing does.
        index: position of the annotation or image in its file, -1 for others.
    """

    kind: str
    where: str
    message: str
    fatal: bool = True
    remedy: str = ''
    index: int = -1


@dataclass
class SplitReport:
    """One data set of a config.

    Attributes:
        key: its place in the config, e.g. ``train_dataloader.dataset``.
        dataset: name of its type.
        classes: class names, in the order of the labels.
        images: images that are used, i.e. without those that ``filter_cfg``, ``indices`` and findings take away.
        per_class: (images, instances) of each class. Of semantic maps only the opened ones are known, and they have no
            instances.
        findings: what is wrong or remarkable.
        opened: image files that were opened.
        cached: whether that is known from an earlier scan.
        note: why it was not scanned, or what was left out.
        ann_file: annotation file, or empty.
        digests: hash of the content of each opened image file.
        histogram: lines about the values of semantic maps, where some of them are wrong.
    """

    key: str
    dataset: str
    classes: tuple[str, ...] = ()
    images: int = 0
    per_class: dict[str, tuple[int, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    opened: int = 0
    cached: bool = False
    note: str = ''
    ann_file: str = ''
    digests: dict[str, str] = field(default_factory=dict)
    histogram: list[str] = field(default_factory=list)

    @property
    def fatal(self) -> list[Finding]:
        """The findings for which a run has to stop."""
        return [finding for finding in self.findings if finding.fatal]

    @classmethod
    def from_json(cls, content: dict) -> 'SplitReport':
        """The report that ``asdict`` made plain lists and dicts of."""
        report = cls(**content)
        report.classes = tuple(report.classes)
        report.per_class = {name: (images, instances) for name, (images, instances) in report.per_class.items()}
        report.findings = [Finding(**finding) for finding in content['findings']]
        return report


def by_kind(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Findings of each kind, in the order in which the kinds first appear."""
    kinds = {finding.kind: i for i, finding in reversed(list(enumerate(findings)))}
    ordered = sorted(findings, key=lambda finding: kinds[finding.kind])
    return {kind: list(group) for kind, group in groupby(ordered, key=lambda finding: finding.kind)}


def raise_findings(reports: Sequence[SplitReport]) -> None:
    """Stop if there is something to stop for.

    Raises:
        DataError: there are fatal findings; the message counts them by kind, with the first cases of each.
    """
    reports = [report for report in reports if report.fatal]
    if not reports:
        return
    findings = [finding for report in reports for finding in report.fatal]
    remedies = []
    if any(finding.remedy for finding in findings):
        remedies.append('--lenient leaves them out of the run and counts them in the log; no file of yours is changed')
    if not all(finding.remedy for finding in findings):
        kinds = by_kind([finding for finding in findings if not finding.remedy])
        remedies.append(f'has to be mended by hand: {", ".join(kinds)}')
    title = f'{len(findings)} fault{"s" if len(findings) > 1 else ""} in the data:'
    raise DataError('\n'.join([title, *map(_describe, reports), *remedies]))


def _describe(report: SplitReport) -> str:
    lines = [f'{report.key} ({report.dataset}{", " + report.ann_file if report.ann_file else ""})']
    for kind, cases in by_kind(report.fatal).items():
        lines.append(f'  {kind}: {len(cases)}')
        lines += [f'    {case.where}: {case.message}' for case in cases[:SHOWN]]
        if len(cases) > SHOWN:
            lines.append(f'    and {len(cases) - SHOWN} more')
    lines += [f'  {line}' for line in report.histogram]
    return '\n'.join(lines)
