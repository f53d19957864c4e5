"""Loaders that give what their loops take."""

from collections.abc import Iterator

from vitdense.config.tree import places
from vitdense.registry import bare_type

from .rules import Case, rule
from .run import Run

ENDLESS = ('InfiniteSampler', 'MultiSourceSampler', 'GroupMultiSourceSampler')
"""Samplers of mmengine and mmdet that never end, subclasses included."""


@rule(
    'endless sampler',
    looks_at='`sampler` and `batch_sampler` of each loader, and whether `train_cfg` counts epochs',
    expected='a sampler that ends: an epoch is over, and so is an evaluation, when the sampler is',
)
def endless(run: Run) -> Iterator[Case]:
    for split in run.splits:
        if split.name == 'train' and not run.by_epoch:
            continue
        for name in ('sampler', 'batch_sampler'):
            sampler, key = split.loader.get(name), f'{split.key}.{name}'
            if run.is_a(sampler, *ENDLESS):
                where = 'train_cfg counts epochs' if split.name == 'train' else 'an evaluation is one pass'
                remedy = f'--cfg-options {key}.type=DefaultSampler' if bare_type(sampler) == ENDLESS[0] else ''
                if split.name == 'train':
                    remedy += f'{", or " if remedy else ""}train by iterations (IterBasedTrainLoop)'
                yield Case(key, f'{bare_type(sampler)}, and {where}', remedy=remedy)


@rule(
    'training data in one order',
    looks_at='`sampler` of the training loader',
    expected='a sampler that shuffles: without one, each pass has the order of the file',
    remedy='--cfg-options train_dataloader.sampler.type=DefaultSampler train_dataloader.sampler.shuffle=True',
    fatal=False,
)
def order(run: Run) -> Iterator[Case]:
    loader = run.split('train').loader if run.trains else {}
    sampler = loader.get('sampler')
    if loader.get('dataset') and not sampler and not loader.get('batch_sampler'):
        yield Case('train_dataloader', 'no sampler')
    elif sampler and bare_type(sampler) in ('DefaultSampler', 'InfiniteSampler') and not sampler.get('shuffle', True):
        yield Case('train_dataloader.sampler.shuffle', 'False')


@rule(
    'sampler that ends in a loop of iterations',
    looks_at='`sampler` of the training loader, and whether `train_cfg` counts iterations',
    expected='a sampler without an end: after each pass, workers that are not persistent start anew',
    remedy='--cfg-options train_dataloader.sampler.type=InfiniteSampler',
    fatal=False,
)
def ends(run: Run) -> Iterator[Case]:
    sampler = run.split('train').loader.get('sampler')
    if run.trains and not run.by_epoch and bare_type(sampler) == 'DefaultSampler':
        yield Case('train_dataloader.sampler', 'DefaultSampler, and train_cfg counts iterations')


MEMORIES = ('CachedMosaic', 'CachedMixUp')
"""Transforms of mmdet that mix in images which their worker has loaded before."""


@rule(
    'transform with a memory',
    looks_at='transforms of the training data that mix in images which their worker has loaded before',
    expected='Mosaic and MixUp in a MultiImageMixDataset, if a resumed run shall be the uninterrupted one to the bit',
    fatal=False,
)
def memories(run: Run) -> Iterator[Case]:
    loader = run.split('train').loader if run.trains else {}
    for key, node in places(loader.get('dataset') or {}, 'train_dataloader.dataset').items():
        if isinstance(node, dict) and run.is_a(node, *MEMORIES):
            yield Case(f'{key}.type', f'{bare_type(node)}, whose memory is in no checkpoint')
            return


NUMBERS = {'batch_size': 1, 'num_workers': 0, 'prefetch_factor': 1, 'timeout': 0}
"""The least that each may be."""


@rule(
    'number of a loader',
    looks_at='`batch_size`, `num_workers`, `prefetch_factor` and `timeout` of each loader',
    expected='a whole number: 1 or more images and batches, 0 or more workers and seconds',
)
def numbers(run: Run) -> Iterator[Case]:
    for split in run.splits:
        for name, least in NUMBERS.items():
            value = split.loader.get(name, least)
            unset = value is None and (name == 'prefetch_factor' or split.loader.get('batch_sampler'))
            whole = isinstance(value, int) or (name == 'timeout' and isinstance(value, float))
            if not unset and (isinstance(value, bool) or not whole or value < least):
                yield Case(f'{split.key}.{name}', repr(value))


@rule(
    'setting beside a batch sampler',
    looks_at='`drop_last` and `shuffle` of each loader with a `batch_sampler`',
    expected='none: the batch sampler decides, and drop_last is an argument of it',
)
def beside(run: Run) -> Iterator[Case]:
    for split in run.splits:
        for name in ('drop_last', 'shuffle') if split.loader.get('batch_sampler') else ():
            if split.loader.get(name):
                key = f'{split.key}.{name}'
                yield Case(key, f'{split.loader[name]}', remedy=f'--cfg-options {key}=False')


@rule(
    'loader without a batch',
    looks_at='`batch_size`, `drop_last` and the images of each loader, in each process',
    expected='one batch or more: with drop_last the last one counts only if it is whole',
    needs='model',
)
def no_batch(run: Run) -> Iterator[Case]:
    for split in run.splits:
        endless = run.is_a(split.loader.get('sampler'), *ENDLESS)  # its length is that of the data set
        if run.steps.get(split.name) == 0 and not endless:
            size, processes = split.loader.get('batch_size', 1), run.processes
            shared = f' in each of {processes} processes' if processes > 1 else ''
            batches = split.loader.get('batch_sampler') or {}
            drop = split.loader.get('drop_last') or batches.get('drop_last')
            owner = f'{split.key}.batch_sampler' if batches else split.key
            yield Case(
                split.key,
                f'0 steps in batches of {size}{shared}, drop_last={bool(drop)}',
                remedy=f'--cfg-options {owner}.drop_last=False, or a smaller batch_size' if drop else '',
            )
