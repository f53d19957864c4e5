"""docs/checks.md, written from the rules: ``python -m vitdense.checks.page docs/checks.md``."""

import sys
from collections.abc import Iterable
from pathlib import Path

from vitdense.checks import CHECKS, STAGES
from vitdense.datasets.formats import rules as formats_rules
from vitdense.findings import RULES, Rule

HEAD = """# What is checked

`tools/check.py` asks all rules of this page. Training and tests ask those that concern them, before the first step. A
fault stops the run; a remark is a line of the log. Each is told in the same form: the rule, where it was broken (key of
the config, file, annotation), what is there, what was expected, and what to do about it.

```
endless sampler: train_dataloader.sampler: InfiniteSampler, and train_cfg counts epochs; expected a sampler that ends
  --cfg-options train_dataloader.sampler.type=DefaultSampler, or train by iterations (IterBasedTrainLoop)
```

This page is written from the rules: `python -m vitdense.checks.page docs/checks.md`.
"""

TITLES = {
    'parts': ('Parts of the config', 'Asked first, so that all others can take the parts for granted.'),
    'config': ('The config', 'Asked before any file of the data is opened.'),
    'data': ('Data and config together', 'Asked when the annotation files are read and some images are opened.'),
    'model': ('Model, data and config together', 'Asked when the model and the loaders are built.'),
}

OWN_DATA = (
    'Own data',
    'Asked when `--data` is read, before PyTorch is imported; the file is then scanned as any other.',
)

FILES = (
    'Files of the data',
    '`--lenient` leaves out single images and annotations with a fault, and counts them. Annotation files are read '
    'whole. Images and maps are opened as `--check` says: 500 of each data set, `full` all, `off` none.',
)


def page() -> str:
    """The whole page."""
    of_stage = {stage: [RULES[name] for needs, name, *_ in CHECKS if needs == stage] for stage in STAGES}
    of_own_data = [RULES[name] for name in vars(formats_rules).values() if isinstance(name, str) and name in RULES]
    named = [of_own_data, *of_stage.values()]
    others = [rule for rule in RULES.values() if not any(rule in rules for rules in named)]
    sections = [_section(*TITLES[stage], of_stage[stage]) for stage in ('parts', 'config')]
    sections += [_section(*OWN_DATA, of_own_data), _section(*FILES, others)]
    sections += [_section(*TITLES[stage], of_stage[stage]) for stage in ('data', 'model')]
    return '\n'.join([HEAD, *filter(None, sections)])


def _section(title: str, text: str, rules: Iterable[Rule]) -> str:
    rows = [
        f'| {rule.name} | {rule.looks_at} | {rule.expected} | {rule.remedy} | {"stops" if rule.fatal else "remark"} |'
        for rule in rules
    ]
    if not rows:
        return ''
    head = ['| rule | looks at | expected | remedy | |', '| --- | --- | --- | --- | --- |']
    return '\n'.join([f'## {title}', '', text, '', *head, *rows, ''])


if __name__ == '__main__':
    Path(sys.argv[1]).write_text(page())
