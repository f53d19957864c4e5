"""``vitdense predict``: what a trained model sees in pictures and videos."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_distributed
from rich.progress import Progress

from vitdense.console import CONSOLE
from vitdense.engine.processes import leave, on_main_process
from vitdense.files import check_folder
from vitdense.names import counted
from vitdense.predict import ImageError, load
from vitdense.predict.outputs import Outputs
from vitdense.predict.predictor import ahead
from vitdense.predict.sources import Origin, find
from vitdense.untrusted.text import visible


def run(args: argparse.Namespace) -> int:
    """Predict as ``vitdense predict`` was told: 1 if some sources could not be read, else 0.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, TypeError, ImportError: it cannot do what it was told.
    """
    origins = sources_of(args.sources)
    check_folder('--out', args.out)
    if int(os.environ.get('WORLD_SIZE', 1)) > 1 and not is_distributed():
        torch.distributed.init_process_group('gloo')
    model = load(args.model, args.checkpoint, args.device)
    options = (args.threshold, args.batch_size, args.tile, args.overlap, args.classes)
    model.stream((), *options)  # an option that does not fit says so before anything is removed
    if args.overwrite:
        on_main_process(lambda: remove(args.out))
    names = ('model', 'checkpoint', 'threshold', 'classes', 'tile', 'overlap')
    outputs = Outputs(args.out, {name: getattr(args, name) for name in names}, origins, args.pictures, get_rank())
    done = on_main_process(lambda: set(outputs.done))
    left = [origin for origin in origins if origin.path not in done]
    mine = left[get_rank() :: get_world_size()]
    unread: list[ImageError] = []
    results = model.stream(mine, *options, failed=unread.append)
    with Progress(console=CONSOLE, disable=get_rank() > 0 or not CONSOLE.is_terminal) as bar:
        task = bar.add_task('predict', total=len(mine))
        for drawn in ahead(outputs.draw, results, args.batch_size, None):
            outputs.add(drawn)
            bar.update(task, completed=len(outputs.done) - len(done) + len(unread))
    outputs.close()
    barrier()
    finished = outputs.finished()
    if get_rank() == 0 and finished:
        file = outputs.finish(model.names)
        if args.label_studio is not None:
            outputs.finish_label_studio(model.names, model.palette, args.label_studio)
        earlier = f', {len(done)} of them by an earlier start' if done else ''
        CONSOLE.print(f'{counted(len(finished), "source")} in {args.out}{earlier}; results: {file}')
    for error in unread:
        print(f'error: {visible(str(error))}', file=sys.stderr, flush=True)
    leave()
    return 1 if unread else 0


def sources_of(names: list[str]) -> list[Origin]:
    """What the sources of the command line consist of, each once.

    Raises:
        FileNotFoundError, ValueError: see :func:`vitdense.predict.sources.find`; or one is a camera.
    """
    origins: dict[str, Origin] = {}
    for name in names:
        if name.isdigit() and not os.path.exists(name):
            raise ValueError(
                f'{name} is a camera, which has no end: vitdense.load(MODEL).predict({name}, stream=True) goes through '
                'its pictures'
            )
        for origin in find(name):
            origins.setdefault(origin.path, origin)
    return list(origins.values())


def remove(folder: Path) -> None:
    """Remove what an earlier start left in a folder.

    Raises:
        FileExistsError: it holds something else.
    """
    known = ('progress_*.jsonl', 'predictions.json', 'label_studio.*', 'pictures', 'maps', 'videos')
    there: list[Any] = list(folder.iterdir()) if folder.is_dir() else []
    others = [path.name for path in there if not any(path.match(pattern) for pattern in known)]
    if others or (there and not any(path.match(known[0]) for path in there)):
        raise FileExistsError(f'--overwrite: {folder} holds other files than predictions; choose another --out')
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
