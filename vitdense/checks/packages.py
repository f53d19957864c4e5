"""Packages that parts of a config import only where they are used."""

from collections.abc import Iterator

from vitdense.compat.requirements import missing_package
from vitdense.config.tree import places

from .rules import Case, rule
from .run import Run


@rule(
    'missing package',
    looks_at='types of the data sets, transforms and metrics of the splits that the run uses',
    expected='the packages that they import, installed',
    remedy='pip install PACKAGE; the message has the name',
)
def packages(run: Run) -> Iterator[Case]:
    """Each package once."""
    told = set()
    for split in run.splits:
        for key, node in [*places({split.key: split.loader}).items(), *split.metrics]:
            kind = run.kind(node) if isinstance(node, dict) and 'type' in node else None
            package = missing_package(kind) if kind else None
            if kind and package and package not in told:
                told.add(package)
                yield Case(
                    key, f'{kind.__name__} needs {package}, which is not installed', remedy=f'pip install {package}'
                )
