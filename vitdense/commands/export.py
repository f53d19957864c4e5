"""``vitdense export``: a trained model as one file that needs no config."""

import argparse
import copy
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from rich.table import Table

from vitdense.commands.arguments import FORMATS
from vitdense.config.datasets import leaf_datasets
from vitdense.console import CONSOLE, silent_imports
from vitdense.export.evaluate import differing, evaluate
from vitdense.export.onnx import to_onnx
from vitdense.export.program import to_program
from vitdense.export.proof import compare
from vitdense.export.weights import to_weights
from vitdense.files import check_folder, replacing
from vitdense.names import counted
from vitdense.predict.load import load, load_exported
from vitdense.predict.model import Model
from vitdense.predict.sources import Frame, find

WRITERS: dict[str, Callable[[Model, Path, bool], None]] = dict(onnx=to_onnx, torch=to_program, safetensors=to_weights)

PICTURES = 8
"""Of the validation, that an exported model is compared with its original on."""


def run(args: argparse.Namespace) -> int:
    """Export as ``vitdense export`` was told: 1 if the file finds something else than the model, else 0.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, KeyError, ImportError: it cannot do what it was told.
    """
    form, target = target_of(args)
    model = load(args.model, args.checkpoint, 'cpu')
    assert isinstance(model, Model)
    paths = args.images or validation_images(model.cfg)
    frames = [Frame(origin.read(), origin.path) for origin in find(paths)]
    # Before the model is recorded: what is wrong with an evaluation is told at once
    before = evaluate(model, copy.deepcopy(model.cfg)) if args.evaluate or args.half else {}
    with replacing(target) as part:
        start = time.perf_counter()
        with CONSOLE.status('export'):
            WRITERS[form](model, part, args.half)
        seconds, size = time.perf_counter() - start, part.stat().st_size / 2**20
        CONSOLE.print(f'exported   {type(model.network).__name__}, {size:.1f} MB, in {seconds:.0f} s')
        exported = load_exported(str(part), 'cpu')
        differences = compare(model, exported, frames)
        CONSOLE.print(f'proof      {differences}')
        wrong = [] if differences.is_small or args.half else ['detections or pixels']
        if before:
            wrong += compare_metrics(before, evaluate(exported, copy.deepcopy(model.cfg)))
        if wrong:
            part.unlink()
            CONSOLE.print(f'FAILED: the file finds something else than the model ({", ".join(wrong)}): not written')
            return 1
        check_free(target, args.overwrite)
    CONSOLE.print(f'file       {target}')
    return 0


def compare_metrics(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Print the metrics of the validation of a model and of its file, and return those that differ."""
    table = Table('metric', 'PyTorch', 'exported')
    for key in before:
        values = [metrics.get(key, -1) for metrics in (before, after)]
        table.add_row(key, *('-' if value == -1 else f'{value:.4f}' for value in values))  # as COCO says 'undefined'
    CONSOLE.print(table)
    return differing(before, after)


def target_of(args: argparse.Namespace) -> tuple[str, Path]:
    """The format, and the file to write.

    Raises:
        FileExistsError: it is there, and nobody said ``--overwrite``; or it is a folder.
        FileNotFoundError: there is no such folder.
        PermissionError: nothing can be written there.
        ValueError: it has another suffix, or the model is a file that cannot be exported again.
    """
    model = Path(args.model)
    if model.suffix in (FORMATS['onnx'], FORMATS['torch']) and model.is_file():
        raise ValueError(f'{model} is exported already; its work dir or a file of --to safetensors can be')
    of_suffix = {suffix: form for form, suffix in FORMATS.items()}
    form = args.to or of_suffix.get(args.out.suffix if args.out else '', 'onnx')
    suffix = FORMATS[form]
    target = args.out or (model / f'model{suffix}' if model.is_dir() else Path(f'{model.stem}{suffix}'))
    if target.suffix != suffix:
        raise ValueError(f'--out {target}: expected the path of a file that ends in {suffix}')
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f'--out {target}: there is no folder {target.parent}')
    check_free(target, args.overwrite)
    check_folder('--out', target.parent)
    return form, target


def check_free(target: Path, overwrite: bool) -> None:
    """Look whether a file may be written.

    Raises:
        FileExistsError: it is there, and not to be overwritten; or it is a folder.
    """
    if target.is_dir():
        raise FileExistsError(f'--out {target} is a folder, expected the path of a file')
    if target.exists() and not overwrite:
        raise FileExistsError(f'{target} is there already; --overwrite replaces it')


def validation_images(cfg: Config) -> list[str]:
    """Paths of ``PICTURES`` images of the validation or test of a config, evenly spread.

    Raises:
        FileNotFoundError: they are not there.
    """
    for split in ('val', 'test'):
        for _, leaf in leaf_datasets(cfg, split):
            if leaf.get('data_root') and not os.path.isdir(leaf.data_root):
                continue  # nor is it generated for this
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'), silent_imports():
                try:
                    dataset: Any = DATASETS.build({**leaf, 'pipeline': []})
                    paths = [dataset.get_data_info(i)['img_path'] for i in spread(len(dataset))]
                except OSError:
                    continue
            if paths and all(map(os.path.isfile, paths)):
                return paths
    raise FileNotFoundError(
        f'the images of the validation are not there, of which {counted(PICTURES, "picture")} show whether the file '
        'finds what the model finds: --images names others'
    )


def spread(number: int) -> list[int]:
    """At most ``PICTURES`` of ``number`` places, from the first to the last."""
    return sorted({round(place) for place in np.linspace(0, number - 1, PICTURES)}) if number else []
