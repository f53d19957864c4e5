"""``--backbone`` on every config of the installed mmdet and mmseg: does it work, or is it refused with a reason?

    python benchmarks/swap_sweep.py --backbones none swin_tiny deit_small --out docs/backbone_sweep.md

Each config is read, its backbone is swapped, its model is built, and trained for one step on two generated images of
128 pixels. Configs with equal models, but for the number of classes, are tried once. A config is

- ok: the step ends with a finite loss, and all that is trained in backbone and neck has a gradient (without one
  DistributedDataParallel stops at the second step), unless the config says ``find_unused_parameters``;
- refused: ``ValueError`` of ``--backbone`` before anything is built;
- alike: the step fails as that of the config as it is does (an operator or a package is missing);
- unreadable: mmengine cannot read the config (files or packages are missing);
- crashed: everything else.

The backbone ``none`` stands for the config as it is, which is not trained: its model is built, and the checks of
channels and of class counts have to let it pass. It is ok, blamed, unreadable, or not built (packages are missing).

Results go to ``--log``, a JSON object a line. A sweep that was interrupted goes on from there, and ``--out`` makes the
table of all that is in it.
"""

import argparse
import copy
import importlib.util
import json
import os
import re
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from generated_step import BATCHES, train_step
from measuring import describe, markdown_table
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope

from vitdense.config.channels import misfits
from vitdense.config.class_counts import miscounts
from vitdense.config.datasets import leaf_datasets
from vitdense.config.known_keys import resolve
from vitdense.config.load import load_config
from vitdense.config.swap import backbone as swap
from vitdense.config.swap.measure import Maps, build_weightless, without_weights

AS_IT_IS = 'none'
"""In place of a backbone's name: the config without a swap."""

OUTCOMES = ('ok', 'refused', 'alike', 'not built', 'unreadable', 'no model', 'blamed', 'crashed')

PACKAGES = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation')

TITLE = """# `--backbone` on all configs of mmdet and mmseg

Made by `benchmarks/swap_sweep.py`, which says what the outcomes mean. `none` is the config as it is.

The two blamed ones, `san-vit-b16_voc12aug-640x640.py` and its like, have a fault: their head has the 20 classes of the
validation, and the training data 21."""


class Result(NamedTuple):
    """What came of one config with one backbone: one of ``OUTCOMES``, and why, or what changed."""

    config: str
    backbone: str
    outcome: str
    reason: str
    seconds: float = 0.0


def configs(package: str) -> Iterator[str]:
    """Names of all configs of an installed package, as ``package::folder/file.py``."""
    spec = importlib.util.find_spec(package)
    root = Path(spec.origin).parent / '.mim' / 'configs'
    for path in sorted(root.rglob('*.py')):
        if '_base_' not in path.parts:
            yield f'{package}::{path.relative_to(root).as_posix()}'


def by_turns(names: Sequence[str]) -> list[str]:
    """The first config of each folder, then the second of each: a sweep that ends early has seen every method."""
    turns: Counter = Counter()
    order = []
    for name in names:
        folder = name.rpartition('/')[0]
        order.append((turns[folder], name))
        turns[folder] += 1
    return [name for _, name in sorted(order, key=lambda item: item[0])]


def classes_of(cfg: Config) -> Sequence[str] | None:
    """Names of the classes of the training data, as far as they are known without its files."""
    for _, node in leaf_datasets(cfg, 'train'):
        known = node.get('metainfo') or getattr(resolve(node.type, cfg.default_scope), 'METAINFO', {})
        return known.get('classes')
    return None


def check(cfg: Config) -> tuple[str, str]:
    """Does a config that is valid pass the checks of channels and of class counts?"""
    try:
        try:
            model = build_weightless(without_weights(cfg.model))
        except RuntimeError:  # CLRNet computes with tensors in its constructor
            model = MODELS.build(without_weights(cfg.model))
    except Exception as error:
        return 'not built', _told(error)
    try:
        maps = swap.measure(cfg, cfg.model.backbone) if 'backbone' in cfg.model else None
    except ValueError:  # it does not return maps
        maps = None
    for where, found, expected in misfits(cfg.model, maps.channels) if maps else ():
        return 'blamed', f'{where}: {found}, expected {expected}'
    if classes := classes_of(cfg):
        problems, _ = miscounts(model, len(classes), cfg.model)
        if problems:
            return 'blamed', '; '.join(problems)
    return 'ok', f'{len(maps.channels) if maps else 0} maps, {len(classes or ())} classes'


def model_key(cfg: Config) -> str:
    """What configs have in common that are tried once: all but the number of classes, and what is for tests only."""

    def without(node: Any) -> Any:
        if isinstance(node, list | tuple):
            return [without(one) for one in node]
        if not isinstance(node, dict):
            return node
        return {key: without(value) for key, value in node.items() if key not in IRRELEVANT}

    optimizer = without(cfg.get('optim_wrapper', {}))
    return str((cfg.get('default_scope'), cfg.get('find_unused_parameters'), without(cfg.model), optimizer))


IRRELEVANT = ('num_classes', 'class_weight', 'test_cfg', 'checkpoint', 'pretrained', 'lr', 'size', 'batch_augments')


class Sweep:
    """Runs configs, and remembers the results of equal models."""

    def __init__(self) -> None:
        self.tried: dict[str, tuple[str, str]] = {}
        self.failures: dict[str, str] = {}
        swap.measure = _remembered(swap.measure)

    def run(self, name: str, backbones: Sequence[str]) -> Iterator[Result]:
        """What comes of each of ``backbones`` on a config."""
        try:
            cfg = load_config(name)
        except Exception as error:
            yield from (Result(name, backbone, 'unreadable', _told(error)) for backbone in backbones)
            return
        for backbone in backbones:
            start = time.perf_counter()
            outcome, reason = self.try_(copy.deepcopy(cfg), backbone)
            yield Result(name, backbone, outcome, reason, round(time.perf_counter() - start, 2))

    def try_(self, cfg: Config, backbone: str) -> tuple[str, str]:
        """Outcome and reason for a config, from one with an equal model if there was any."""
        if not isinstance(cfg.get('model'), dict) or not cfg.model.get('type'):
            return 'no model', ''
        key = backbone + (str((cfg.model, classes_of(cfg))) if backbone == AS_IT_IS else model_key(cfg))
        if key not in self.tried:
            self.tried[key] = self._try(cfg, backbone)
        return self.tried[key]

    def _try(self, cfg: Config, backbone: str) -> tuple[str, str]:
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        if backbone == AS_IT_IS:
            return check(cfg)
        old = copy.deepcopy(cfg)
        try:
            changes = swap.swap_backbone(cfg, backbone, pretrained=False)
        except ValueError as error:
            return ('refused' if str(error).startswith('--backbone') else 'crashed'), str(error)
        except Exception as error:
            return 'crashed', f'{_told(error)} in {_where(error)}'
        if failure := self.failure(cfg):
            return ('crashed' if self.failure(old) != failure else 'alike'), failure
        return 'ok', '; '.join(changes)

    def failure(self, cfg: Config) -> str:
        """Why a training step fails, empty where it does not."""
        key = model_key(cfg)
        if key not in self.failures:
            self.failures[key] = _failure(cfg)
            if 'too small' in self.failures[key]:  # for a head that pools by tens of pixels
                self.failures[key] = _failure(cfg, side=1024)
        return self.failures[key]


def _failure(cfg: Config, **options: int) -> str:
    try:
        train_step(cfg, **options)
    except Exception as error:
        return f'{_told(error)} in {_where(error)}'
    return ''


def _remembered(measuring: Callable[[Config, ConfigDict], Maps]) -> Callable[[Config, ConfigDict], Maps]:
    """The same function, which measures equal backbones once."""
    known: dict[str, Maps] = {}

    def measure(cfg: Config, backbone: ConfigDict) -> Maps:
        key = str((cfg.get('default_scope'), backbone))
        if key not in known:
            known[key] = measuring(cfg, backbone)
        return known[key]

    return measure


def _told(error: Exception) -> str:
    """Type and message of an error, in one line, without what it says about this machine."""
    message = str(error).partition(', the current sys.path')[0]
    message = re.sub(r"[^\s'\"]*/configs/", '', ' '.join(message.split()))
    return f'{type(error).__name__}: {message}'[:300]


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'{Path(frame.filename).name}:{frame.lineno}'


def markdown(results: Sequence[Result]) -> str:
    """Tables of how many configs have which outcome: in all, by folder, and by the reason of what is not ok."""
    backbones = list(dict.fromkeys(result.backbone for result in results))
    found = [outcome for outcome in OUTCOMES if any(result.outcome == outcome for result in results)]
    counts = Counter((result.backbone, result.outcome) for result in results)
    total = [[name, *(str(counts[name, outcome]) for outcome in found)] for name in backbones]
    folders: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    reasons: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        folders[result.config.rpartition('/')[0]][result.backbone][result.outcome] += 1
        if result.outcome not in ('ok', 'no model'):
            reasons[result.outcome, result.reason].append(result)
    rows = [
        [folder, *(', '.join(f'{n} {outcome}' for outcome, n in by[name].most_common()) for name in backbones)]
        for folder, by in sorted(folders.items())
    ]
    why = [
        [outcome, str(len(those)), those[0].config.rpartition('::')[2], reason.replace('|', '\\|')]
        for (outcome, reason), those in sorted(
            reasons.items(), key=lambda item: (OUTCOMES.index(item[0][0]), item[0][1])
        )
    ]
    return '\n\n'.join(
        [
            markdown_table(['backbone', *found], total),
            '## Why not',
            markdown_table(['outcome', 'results', 'e.g.', 'reason'], why),
            '## By folder',
            markdown_table(['configs', *backbones], rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backbones', nargs='+', default=[AS_IT_IS], help='names that --backbone takes, or none')
    parser.add_argument('--packages', nargs='+', choices=list(BATCHES), default=list(BATCHES))
    parser.add_argument('--only', default='', help='pattern of config names')
    parser.add_argument('--log', type=Path, default=Path('swap_sweep.jsonl'))
    parser.add_argument('--out', type=Path, help='Markdown file to write')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    os.environ['HF_HUB_OFFLINE'] = '1'  # language models are not downloaded for this
    known = args.log.read_text().splitlines() if args.log.is_file() else []
    results = [Result(**result) for result in map(json.loads, known)]
    done = {(result.config, result.backbone) for result in results}
    sweep = Sweep()
    wanted = [name for package in args.packages for name in configs(package) if re.search(args.only, name)]
    with args.log.open('a') as log:
        for name in by_turns(wanted):
            left = [backbone for backbone in args.backbones if (name, backbone) not in done]
            for result in sweep.run(name, left) if left else ():
                results.append(result)
                log.write(json.dumps(result._asdict()) + '\n')
                log.flush()
    tried = len({result.config for result in results} & set(wanted))
    text = f'{tried} of {len(wanted)} configs were tried.\n\n{markdown(results)}'
    print(text)
    if args.out:
        setup = describe('cpu', ('vitdense', 'torch', *PACKAGES))
        args.out.write_text('\n\n'.join([TITLE, *(f'- {line}' for line in setup), text]) + '\n')


if __name__ == '__main__':
    main()
