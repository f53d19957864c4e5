"""``vitdense benchmark``: what a model costs, alone or beside another one."""

import argparse
import math
import os
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import track
from rich.table import Table

from vitdense.benchmark.machine import processor, versions
from vitdense.benchmark.parts import PARTS
from vitdense.benchmark.rounds import Measured, take_turns
from vitdense.benchmark.subject import Subject
from vitdense.commands.export import validation_images
from vitdense.config.load import load_config
from vitdense.console import CONSOLE
from vitdense.predict import Predictor, load
from vitdense.predict.load import SUFFIXES, find_model, load_model
from vitdense.predict.sources import Frame, find

NOISE_HW = (480, 640)
"""Height and width of the picture without a subject that is taken where there is no other."""

PACKAGES = ('vitdense', 'torch', 'onedl-mmdetection', 'mmdet', 'onedl-mmsegmentation', 'mmsegmentation', 'onnxruntime')
MEMORY = 'what a batch adds at its peak: of resident memory on a CPU, of the allocator of PyTorch on a GPU'


def run(args: argparse.Namespace) -> None:
    """Measure and print as ``vitdense benchmark`` was told.

    Raises:
        FileNotFoundError, ValueError, KeyError, ImportError: it cannot do what it was told.
    """
    if args.vs_checkpoint and not args.vs:
        raise ValueError('--vs-checkpoint is of --vs, which is not given')
    with as_many(args.threads):
        models = [load_any(args.model, args.checkpoint, args.device)]
        if args.vs:
            models.append(load_any(args.vs, args.vs_checkpoint, args.device))
        exported = not any(hasattr(predictor, 'network') for predictor, _ in models)
        for name in ('amp', 'compile'):
            if getattr(args, name) and exported:
                raise ValueError(f'--{name} is not for exported files, which are run as they are')
        pictures, what = pictures_of(args.images, [predictor for predictor, _ in models], args.batch_size)
        hw = None if args.size is None else (args.size[0], args.size[1])
        subjects = [
            Subject(name, weights, predictor, pictures, args.batch_size, hw, args.amp, args.compile)
            for name, (predictor, weights) in zip(names_of(args.model, args.vs), models, strict=True)
        ]
        rounds = track(range(args.rounds), 'rounds', console=CONSOLE, disable=not CONSOLE.is_terminal, transient=True)
        measured = take_turns(subjects, rounds)
        CONSOLE.print(table_of(subjects, measured))
        turns = f', in which the models take turns; ratios are of {subjects[0].name} to {subjects[-1].name}'
        CONSOLE.print(f'rounds     {args.rounds}{turns if args.vs else ""}')
        CONSOLE.print(f'memory     {MEMORY}; weights come on top')
        CONSOLE.print(f'pictures   {what}')
        for device in dict.fromkeys(subject.device for subject in subjects):
            CONSOLE.print(f'machine    {processor(device)}')
        CONSOLE.print(f'versions   {versions(PACKAGES)}')


@contextmanager
def as_many(threads: int | None) -> Iterator[None]:
    """Let PyTorch and onnxruntime compute with this number of threads; None leaves it as it is."""
    before, variable = torch.get_num_threads(), os.environ.get('OMP_NUM_THREADS')
    if threads is not None:
        torch.set_num_threads(threads)
    os.environ['OMP_NUM_THREADS'] = str(torch.get_num_threads())  # which sessions of onnxruntime are made with
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if variable is None:
            del os.environ['OMP_NUM_THREADS']
        else:
            os.environ['OMP_NUM_THREADS'] = variable


def load_any(source: str, checkpoint: str | None, device: str | None) -> tuple[Predictor, str]:
    """A model of a work dir, of a file, or of a config, and where its weights are from; without any they are drawn.

    Raises:
        FileNotFoundError, ValueError: see :func:`vitdense.load`.
    """
    config, weights = find_model(source, checkpoint)
    if weights is None and (config.endswith(SUFFIXES) or '::' in config):
        torch.manual_seed(0)
        return load_model(load_config(config), None, device), 'random'
    return load(source, checkpoint, device), Path(weights).name if weights else 'in the file'


def names_of(model: str, other: str | None) -> list[str]:
    """Names of the columns: as short as they differ."""
    paths = [path for path in (model, other) if path is not None]
    short = [re.sub(f'({"|".join(SUFFIXES)})$', '', Path(path.rpartition('::')[2]).name) for path in paths]
    if len(set(short)) == len(paths):
        return short
    return paths if len(set(paths)) == len(paths) else [short[0], f'{short[0]} again']


def pictures_of(paths: list[str] | None, models: Sequence[Predictor], number: int) -> tuple[list[Frame], str]:
    """At most a ``number`` of pictures, all of the size of the first one, and what they are.

    They are those of ``paths``, or else of the validation of the first model that has one.

    Raises:
        FileNotFoundError, ValueError: there are no such pictures.
    """
    what = ''
    for predictor in models if paths is None else []:
        try:
            paths, what = validation_images(getattr(predictor, 'cfg')), ' of the validation'  # noqa: B009
        except (AttributeError, FileNotFoundError):
            continue
        break
    if paths is None:
        image = np.random.default_rng(0).integers(0, 256, (*NOISE_HW, 3), np.uint8)
        height, width = NOISE_HW
        return [Frame(image, 'noise')], f'noise of {width} x {height} pixels; --images takes those of your own'
    images = [origin.read() for origin in find(paths[:number])]
    height, width = images[0].shape[:2]
    frames = [Frame(cv2.resize(image, (width, height)), '') for image in images[:number]]
    return frames, f'{len(frames)}{what}, {width} x {height} pixels'


def flops_of(subject: Subject, found: Measured) -> float | None:
    """Of one picture."""
    return None if subject.complexity is None else subject.complexity.flops


def seconds_of(part: str, subject: Subject, found: Measured) -> float | None:
    """Of a part, in most rounds."""
    return found.median(part)


Cell = Callable[[Subject, Measured], float | None]


def table_of(subjects: Sequence[Subject], measured: Sequence[Measured]) -> Table:
    """A column for each model, and the ratio of both if there are two."""
    table = Table('', *(subject.name for subject in subjects), *['ratio'] * (len(subjects) - 1))
    pairs = list(zip(subjects, measured, strict=True))

    def say(label: str, texts: Sequence[str]) -> None:
        table.add_row(label, *texts, end_section=label == 'input')

    def compare(label: str, cell: Cell, unit: float, form: str, ratio: float | None = None) -> None:
        values = [cell(*pair) for pair in pairs]
        known = [value for value in values if value is not None and math.isfinite(value)]
        texts = ['-' if value is None or not math.isfinite(value) else form.format(value / unit) for value in values]
        if len(values) == 2 and len(known) == 2 and known[1] > 0:
            texts.append(f'{known[0] / known[1] if ratio is None else ratio:.2f}')
        table.add_row(label, *texts)

    say('weights', [subject.weights for subject in subjects])
    say('run by', [subject.runs_in for subject in subjects])
    say('input', [' x '.join(map(str, (subject.batch_size, 3, *subject.hw))) for subject in subjects])
    compare('parameters', lambda one, _: one.parameters, 1e6, '{:.2f} M')
    compare('FLOPs of a picture', flops_of, 1e9, '{:.2f} G')
    turns = zip(*(found.seconds for found in measured), strict=True)
    ratio = statistics.median(pair[0] / pair[1] for pair in turns) if len(subjects) == 2 else None
    compare('latency of a batch, p50', lambda _, found: found.percentile(50), 1e-3, '{:.1f} ms', ratio)
    compare('latency of a batch, p95', lambda _, found: found.percentile(95), 1e-3, '{:.1f} ms')
    for part in PARTS:
        compare(f'  {part}', partial(seconds_of, part), 1e-3, '{:.1f} ms')
    compare('products and convolutions alone', lambda _, found: found.floor, 1e-3, '{:.1f} ms')
    compare('latency, times these', lambda _, found: found.times_floor, 1, '{:.2f}')
    speed = 1 / ratio if ratio else None
    compare('pictures a second', lambda one, found: one.batch_size / found.percentile(50), 1, '{:.2f}', speed)
    compare('memory of a batch', lambda _, found: found.memory, 1, '{:.0f} MB')
    return table
