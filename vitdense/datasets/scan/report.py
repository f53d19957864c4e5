"""What a scan finds, and how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vitdense.findings import Finding, RunError, describe

from . import rules


@dataclass
class MapFacts:
    """What a scan found about the semantic maps of a data set, for rules that compare it with the rest of a run.

    Attributes:
        number: images that have a map, whether its file is there or not.
        reduce_zero_label: of the data set.
        img_suffix: of the data set.
        others: labels that are ignored in the opened maps, as they are loaded.
        folders: of images and maps by their keys, 'img_path' and 'seg_map_path'.
        unread: by the same keys, images of other suffixes and maps without an image in these folders.
    """

    number: int = 0
    reduce_zero_label: bool = False
    img_suffix: str = ''
    others: list[int] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)
    unread: dict[str, list[str]] = field(default_factory=dict)


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
        names: how many objects have each name in the files, whether it is a class or not, where that is known.
        maps: about the semantic maps of a data set that has some.
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
    names: dict[str, int] = field(default_factory=dict)
    maps: MapFacts | None = None

    @property
    def trains(self) -> bool:
        """Whether it is a data set of the training."""
        return self.key.startswith('train_')

    def has(self, name: str) -> bool:
        """Whether its files have objects of this class, as far as that is known."""
        return name in self.names or any(self.per_class.get(name, ()))

    @property
    def fatal(self) -> list[Finding]:
        """The findings for which a run has to stop."""
        return [finding for finding in self.findings if finding.fatal]

    @property
    def causes(self) -> list[Finding]:
        """Those of them that do not follow from others: what has only faults is empty without them."""
        causes = [finding for finding in self.fatal if finding.kind != rules.EMPTY]
        return causes or self.fatal

    @classmethod
    def from_json(cls, content: dict) -> 'SplitReport':
        """The report that ``asdict`` made plain lists and dicts of."""
        report = cls(**content)
        report.classes = tuple(report.classes)
        report.per_class = {name: (images, instances) for name, (images, instances) in report.per_class.items()}
        report.findings = [Finding(**finding) for finding in content['findings']]
        report.maps = MapFacts(**content['maps']) if content['maps'] else None
        return report


def raise_findings(reports: Sequence[SplitReport], others: Sequence[Finding] = ()) -> None:
    """Stop if there is something to stop for.

    Args:
        others: findings about several data sets, or about what reads them.

    Raises:
        RunError: there are fatal findings; the message counts them by kind, with the first cases of each.
    """
    reports = [report for report in reports if report.fatal]
    others = [finding for finding in others if finding.fatal]
    findings = [*others, *(finding for report in reports for finding in report.causes)]
    if not findings:
        return
    remedies = []
    spared = [report for report in reports if report.images]  # nothing would be left of others
    if any(finding.leave_out for report in spared for finding in report.causes):
        remedies.append(
            '--lenient leaves them out or mends them, and counts them in the log; no file of yours is changed'
        )
    whole = [finding for report in reports if not report.images for finding in report.causes]
    by_hand = dict.fromkeys(one.kind for one in findings if not one.leave_out or one in whole)
    if by_hand:
        remedies.append(f'has to be mended by hand: {", ".join(by_hand)}')
    title = f'{len(findings)} fault{"s" if len(findings) > 1 else ""} in the data:'
    raise RunError('\n'.join([title, *map(_describe, reports), *describe(others), *remedies]))


def _describe(report: SplitReport) -> str:
    title = f'{report.key} ({report.dataset}{", " + report.ann_file if report.ann_file else ""})'
    return '\n  '.join([title, *describe(report.causes), *report.histogram])
