"""What ``vitdense predict`` costs beside the bare model: ``python benchmarks/predict.py work_dirs/cells photos``.

The bare model gets batches that were read and prepared before. ``predict`` reads, prepares, predicts, draws and writes
the same pictures; the results alone are what ``vitdense.load(...).predict(..., stream=True)`` gives. All take turns.
``--long N`` goes through N pictures in one stream, and prints the memory of the process after each tenth of them.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import options, report

import vitdense
from vitdense.benchmark.machine import resident
from vitdense.predict.outputs import Outputs
from vitdense.predict.predictor import Predictor, ahead
from vitdense.predict.sources import Frame, Origin, find

PACKAGES = ('vitdense', 'torch', 'onedl-mmdetection', 'onedl-mmsegmentation', 'opencv-python-headless', 'pillow')


def bare(model: Predictor, frames: list[Frame], inputs: list, size: int) -> None:
    for first in range(0, len(frames), size):
        model.infer(frames[first : first + size], inputs[first : first + size], 0.3)


def results(model: Predictor, origins: list[Origin], size: int) -> None:
    for _ in model.stream(origins, batch_size=size):
        pass


def files(model: Predictor, origins: list[Origin], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(Path(folder), {}, origins)
        for drawn in ahead(outputs.draw, model.stream(origins, batch_size=size), size, None):
            outputs.add(drawn)
        outputs.finish(model.names)


def seconds(step: Callable[[], None]) -> tuple[float, float]:
    """Of the clock, and of all processors together."""
    start = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    parser = options(__doc__, repeat=3)
    parser.add_argument('model', help='work dir')
    parser.add_argument('pictures', help='folder')
    parser.add_argument('--number', type=int, default=200, help='pictures, the folder again if it has fewer')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--long', type=int, default=0, metavar='N', help='see above')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = vitdense.load(args.model, device=args.device)
    there = list(find(args.pictures))
    if args.long:
        for i, _ in enumerate(
            model.stream(itertools.islice(itertools.cycle(there), args.long), batch_size=args.batch_size)
        ):
            if i % (args.long // 10) == 0:
                print(f'{i} pictures: {resident() / 1e6:.0f} MB', flush=True)
        return
    origins = [
        Origin(f'{i} {one.path}', one.value) for i, one in zip(range(args.number), itertools.cycle(there), strict=False)
    ]
    frames = [Frame(origin.read(), origin.path) for origin in origins]
    inputs = [model.prepare(frame) for frame in frames]
    steps = {
        'bare model': lambda: bare(model, frames, inputs, args.batch_size),
        'results': lambda: results(model, origins, args.batch_size),
        'pictures and COCO file': lambda: files(model, origins, args.batch_size),
    }
    steps['bare model']()
    rounds = [{name: seconds(step) for name, step in steps.items()} for _ in range(args.repeat)]
    rows = []
    for name in steps:
        least = [min(one[name][k] for one in rounds) for k in range(2)]
        ratio = statistics.median(one[name][0] / one['bare model'][0] for one in rounds)
        rows.append((name, f'{least[0]:.2f}', f'{ratio:.3f}', f'{least[1]:.2f}'))
    report(
        args,
        ('', 'seconds', 'times bare model', 'CPU seconds'),
        [rows],
        PACKAGES,
        [f'{args.number} pictures: the least seconds of {args.repeat} rounds, and the median of their ratios'],
    )


if __name__ == '__main__':
    main()
