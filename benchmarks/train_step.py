"""Times set prediction, ours and others: ``python benchmarks/train_step.py --out FILE.md``.

Each implementation has a process of its own. Ours gets the weights of each peer; on the images of the benchmark both
must predict the same. Each round calls every implementation once, so that what else the machine does meets all of them
alike. Ratios are those of the minima over the rounds to the best peer in the same precision, and to the floor: the time
of the matrix products and convolutions of ours alone. Memory is the growth at the peak of a call, gradients included.

The parts: ``step`` from images to gradients; ``transformer`` the same from the maps of the backbone, with the sum of
the predictions in the place of the losses; ``losses`` matching and losses, and their gradients, from predictions;
``inference`` from images to predictions.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from apart import Apart, busy, in_places, kinds_of, report_kinds, take_turns
from detectors import CASES, Batch, Detector, ours
from measuring import options, report
from torch import Tensor

from vitdense.checkpoint.translate import convert

PACKAGES = ('vitdense', 'torch', 'transformers', 'onedl-mmdetection')
HEADER = ('model', 'part', 'precision', 'implementation', 'minimum, s', 'times best peer', 'times floor')
HEADER += ('memory, MB', 'times least peer')
PARTS = ('step', 'transformer', 'losses', 'inference')
OBJECTS = 15


class Subject(NamedTuple):
    """A detector with the batch that it gets."""

    detector: Detector
    batch: Batch


def make(build: Callable[[], Detector], hw: tuple[int, int], device: str) -> Subject:
    return Subject(build().to(device), Batch.random(2, hw, OBJECTS, device))


def step(subject: Subject, part: str, half: bool) -> Callable[[], None]:
    """What to time of a detector."""
    detector, batch = subject
    autocast = partial(torch.autocast, batch.images.device.type, torch.bfloat16, enabled=half)
    with torch.no_grad(), autocast():
        maps = detector.features(batch.images) if part in ('transformer', 'losses') else ()
        predictions = detector.predict(maps, batch) if part == 'losses' else ()
    leaves = tuple(p.float().requires_grad_() for p in predictions)

    def whole() -> None:
        with autocast():
            predictions = detector.predict(detector.features(batch.images), batch)
        detector.losses(tuple(p.float() for p in predictions), batch).backward()

    def transformer() -> None:
        with autocast():
            predictions = detector.predict(maps, batch)
        sum(x.sum() for x in predictions).backward()

    def losses() -> None:
        torch.autograd.grad(detector.losses(leaves, batch), leaves)

    def inference() -> None:
        with torch.no_grad(), autocast():
            detector.predict(detector.features(batch.images), batch)

    function = {'step': whole, 'transformer': transformer, 'losses': losses, 'inference': inference}[part]

    def call() -> None:
        detector.train(part != 'inference')
        function()
        detector.zero_grad(set_to_none=True)

    return call


def save_weights(subject: Subject, path: Path) -> None:
    torch.save(subject.detector.model.state_dict(), path)


def take_weights(subject: Subject, path: Path, family: str) -> None:
    state, _ = convert(torch.load(path), family)
    subject.detector.model.load_state_dict(state, strict=False)


def first_predictions(subject: Subject) -> list[Tensor]:
    """Of the first layer."""
    detector, batch = subject
    detector.eval()
    with torch.no_grad():
        return [x[0].cpu() for x in detector.predict(detector.features(batch.images), batch)]


def build(name: str, args: argparse.Namespace, notes: list[str]) -> dict[str, Apart]:
    """Ours and the peers of a model, by name; what cannot be built or differs is told in ``notes``."""
    case = CASES[name]
    makers = {'vitdense': partial(ours, case.config), **case.peers}
    places = in_places({k: partial(make, x, tuple(args.hw), args.device) for k, x in makers.items()}, args, notes, name)
    for peer in list(places)[1:]:
        difference = compare(places['vitdense'], places[peer], case.family)
        notes.append(f'{name}: predictions of {peer} with the same weights differ by {difference:.1g}')
    return places


def compare(mine: Apart, peer: Apart, family: str) -> float:
    """Give ours the weights of ``peer``; the largest difference of what the first layer predicts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'weights.pth'
        peer(save_weights, path)
        mine(take_weights, path, family)
    pairs = zip(mine(first_predictions), peer(first_predictions), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def main() -> None:
    parser = options(__doc__, repeat=3)
    parser.add_argument('--models', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--hw', nargs=2, type=int, default=(512, 672), metavar=('H', 'W'), help='size of the images')
    parser.add_argument('--precisions', nargs='+', choices=('fp32', 'bf16'), default=['fp32'])
    parser.add_argument('--kinds', action='store_true', help='what the time of ours goes to')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    notes = [f'Two images of {args.hw[0]} x {args.hw[1]} with {OBJECTS} objects each.']
    measured, shares = {}, {}
    for name in args.models:
        places = build(name, args, notes)
        for part, precision in itertools.product(args.parts, args.precisions):
            call = partial(step, part=part, half=precision == 'bf16')
            case = name, part, precision
            measured[case] = take_turns(places, call, part != 'inference', args.device, args.repeat)
            if args.kinds:
                shares[', '.join(case)] = places['vitdense'](kinds_of, call, args.device)
        for place in places.values():
            place.end()
    cases = [[(*case, *cells) for cells in turns.rows()] for case, turns in measured.items()]
    report(args, HEADER, cases, PACKAGES, [*notes, *busy(measured.values())])
    if args.kinds:
        report_kinds(args, shares)


if __name__ == '__main__':
    main()
