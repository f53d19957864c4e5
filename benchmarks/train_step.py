"""Times set prediction, ours and others: ``python benchmarks/train_step.py --out FILE.md``.

Each peer is built first, and ours gets its weights; on the images of the benchmark both must predict the same. Each
round calls every implementation once, so that what else the machine does meets all of them alike. Ratios are those of
the minima over the rounds to the best peer. Memory is the growth at the peak of a call, gradients included.

The parts: ``step`` from images to gradients; ``transformer`` the same from the maps of the backbone, with the sum of
the predictions in the place of the losses; ``losses`` matching and losses, and their gradients, from predictions;
``inference`` from images to predictions.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from detectors import CASES, Batch, Detector, Maps, Ours, ours
from measuring import brief, clock_of, options, report
from torch import Tensor

from vitdense.benchmark.machine import extra_memory
from vitdense.checkpoint.translate import convert

PACKAGES = ('vitdense', 'torch', 'transformers', 'onedl-mmdetection')
HEADER = ('model', 'part', 'implementation', 'minimum, s', 'times best peer', 'memory, MB', 'times least peer')
PARTS = ('step', 'transformer', 'losses', 'inference')


def run_step(detector: Detector, batch: Batch) -> None:
    detector.train()
    detector.losses(detector.predict(detector.features(batch.images), batch), batch).backward()
    detector.zero_grad(set_to_none=True)


def run_transformer(detector: Detector, maps: Maps, batch: Batch) -> None:
    detector.train()
    sum(x.sum() for x in detector.predict(maps, batch)).backward()
    detector.zero_grad(set_to_none=True)


def run_losses(detector: Detector, predictions: tuple[Tensor, ...], batch: Batch) -> None:
    torch.autograd.grad(detector.losses(predictions, batch), predictions)


def run_inference(detector: Detector, batch: Batch) -> None:
    detector.eval()
    with torch.no_grad():
        detector.predict(detector.features(batch.images), batch)


def calls_of(detector: Detector, parts: list[str], batch: Batch) -> dict[str, Callable[[], None]]:
    """What to time of a detector, by part."""
    with torch.no_grad():
        maps = detector.features(batch.images)
        predictions = tuple(p.requires_grad_() for p in detector.predict(maps, batch))
    calls = {
        'step': partial(run_step, detector, batch),
        'transformer': partial(run_transformer, detector, maps, batch),
        'losses': partial(run_losses, detector, predictions, batch),
        'inference': partial(run_inference, detector, batch),
    }
    return {part: calls[part] for part in parts}


def build(name: str, batch: Batch, device: str, notes: list[str]) -> dict[str, Detector]:
    """Ours and the peers of a model, by name; what cannot be built or differs is told in ``notes``."""
    case = CASES[name]
    detectors = {'vitdense': ours(case.config).to(device)}
    for peer, make in case.peers.items():
        try:
            detectors[peer] = make().to(device)
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            notes.append(f'Not measured: {name} of {peer}: {brief(error)}')
            continue
        difference = compare(detectors['vitdense'], detectors[peer], case.family, batch)
        notes.append(f'{name}: predictions of {peer} with the same weights differ by {difference:.1g}')
    return detectors


def compare(mine: Ours, peer: Detector, family: str, batch: Batch) -> float:
    """Give ours the weights of ``peer``; the largest difference of what the first layer predicts."""
    state, _ = convert(peer.model.state_dict(), family)
    mine.model.load_state_dict(state, strict=False)
    predictions = []
    for detector in (mine, peer):
        detector.eval()
        with torch.no_grad():
            predictions.append(detector.predict(detector.features(batch.images), batch))
    return max((a[0] - b[0]).abs().max().item() for a, b in zip(*predictions, strict=True))


def measure(args: argparse.Namespace) -> tuple[list[list[tuple[str, ...]]], list[str]]:
    """Rows of the table by model and part, and notes."""
    clock, cases = clock_of(args.device), []
    notes = [f'Two images of {args.hw[0]} x {args.hw[1]} with 15 objects each.']
    batch = Batch.random(2, tuple(args.hw), 15, args.device)
    for name in args.models:
        detectors = build(name, batch, args.device, notes)
        calls = {peer: calls_of(detector, args.parts, batch) for peer, detector in detectors.items()}
        for part in args.parts:
            rounds = [{peer: clock(call[part]) / 1e3 for peer, call in calls.items()} for _ in range(args.repeat)]
            times = {peer: min(seconds[peer] for seconds in rounds) for peer in calls}
            memory = {peer: extra_memory(call[part], args.device) for peer, call in calls.items()}
            fastest, leanest = (min(x[peer] for peer in x if peer != 'vitdense') for x in (times, memory))
            cases.append([])
            for peer, time in times.items():
                cells = f'{time:.3f}', f'{time / fastest:.2f}', f'{memory[peer]:.0f}', f'{memory[peer] / leanest:.2f}'
                cases[-1].append((name, part, peer, *cells))
    return cases, notes


def main() -> None:
    parser = options(__doc__, repeat=3)
    parser.add_argument('--models', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--hw', nargs=2, type=int, default=(512, 672), metavar=('H', 'W'), help='size of the images')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases, notes = measure(args)
    report(args, HEADER, cases, PACKAGES, notes)


if __name__ == '__main__':
    main()
