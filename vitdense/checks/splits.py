"""The splits of a run against each other."""

from collections.abc import Iterator

from .rules import Case, rule
from .run import Run


@rule(
    'classes of another split',
    looks_at='class names of all data sets of a run, in the order of their labels',
    expected='those of the training, in the same order: a label is a number',
    remedy='give all data sets the same metainfo=dict(classes=(...))',
    needs='data',
)
def classes(run: Run) -> Iterator[Case]:
    if (run.cfg.get('model') or {}).get('language_model'):  # classes are words of a text
        return
    named = [report for report in run.reports if report.classes]
    for report in named[1:]:
        first = named[0]
        if report.classes == first.classes:
            continue
        pairs = zip(first.classes, report.classes, strict=False)
        label = next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(first.classes), len(report.classes)))
        names = [repr(one.classes[label]) if label < len(one.classes) else 'no class' for one in (report, first)]
        order = 'in another order: ' if sorted(report.classes) == sorted(first.classes) else ''
        found = f'{order}label {label} is {names[0]}, in {first.key} {names[1]}'
        yield Case(f'{report.key}.metainfo.classes', found)
