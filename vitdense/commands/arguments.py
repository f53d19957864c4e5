"""The command lines of all tools. Nothing here needs PyTorch or the OpenMMLab packages: ``--help`` is there at once."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vitdense.config.option_values import read_value
from vitdense.datasets.formats import FRACTION, KNOWN
from vitdense.names import unknown
from vitdense.predict.label_studio import LOCAL_FILES
from vitdense.untrusted.text import visible

FORMATS = dict(onnx='.onnx', torch='.pt2', safetensors='.safetensors')
"""What ``vitdense export`` writes, and its suffixes."""

LR = 3e-4
"""Learning rate of ``overfit.py``, of all parameters, with AdamW. A recipe's own is made for 100 000 steps, and a tenth
of it for the backbone leaves that nearly as it is within the hundreds of steps that are enough here; 1e-4 of DETR's is
trebled, which few images and clipped gradients stand."""


class Parser(argparse.ArgumentParser):
    """Answers what it does not understand with one line, and a mistyped option with the nearest right one."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            option = rest[0].partition('=')[0]
            known = option.startswith('-') and unknown('option', option, self._option_string_actions, 3)
            self.error(known or f'unexpected argument {rest[0]!r}')
        return found

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {visible(message)}\nAll options: {self.prog} --help\n')


class Settings(argparse.Action):
    """``KEY=VALUE``, see :mod:`vitdense.config.option_values`."""

    def __call__(self, parser: Any, namespace: Any, values: Sequence[str] | Any, option_string: Any = None) -> None:
        """Add the settings to those of ``namespace``."""
        settings = dict(getattr(namespace, self.dest) or {})
        for setting in values:
            key, equals, text = setting.partition('=')
            if not key or not equals:
                raise argparse.ArgumentError(self, f'expected KEY=VALUE, found {setting!r}')
            try:
                settings[key] = read_value(text)
            except ValueError as error:
                hint = f'the keys of a dict one by one ({key}.a=1 {key}.b=2), a text with such signs in quotes'
                raise argparse.ArgumentError(self, f'{key}: {error}; expected a value, {hint}') from error
        setattr(namespace, self.dest, settings)


def parser_of(command: str, program: str | None = None) -> Parser:
    """The command line of a ``command``, one of ``COMMANDS``, of a ``program``, by default that which was started."""
    parser = Parser(prog=program)
    COMMANDS[command](parser)
    parser.add_argument('--traceback', action='store_true', help='show where in the code an error was raised')
    return parser


def overview(program: str, version: str) -> Parser:
    """The command line before a command: a line about each."""
    parser = Parser(prog=program, usage=f'{program} COMMAND ...', formatter_class=argparse.RawDescriptionHelpFormatter)
    lines = []
    for command in COMMANDS:
        about = parser_of(command).description or ''
        lines.append(f'  {command:10}{about.partition(". ")[0].partition(": ")[0].rstrip(".")}')
    parser.description = '\n'.join(['Vision transformers for detection and segmentation.', '', 'commands:', *lines])
    parser.epilog = f'{program} COMMAND --help has the options of one.'
    parser.add_argument('--version', action='version', version=version)
    return parser


def train(parser: Parser) -> None:
    """Options of ``tools/train.py``."""
    parser.description = 'Train a detector or a segmentor, and evaluate it.'
    add_config(parser, 'train', 'val')
    add_work_dir(parser, 'work_dirs/CONFIG')
    add_launcher(parser)
    add_backbone(parser)
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='CHECKPOINT', help='go on from it, or from the last one'
    )
    parser.add_argument(
        '--accept-changes', action='store_true', help='with --resume: go on though settings are others than before'
    )
    parser.add_argument(
        '--save-every',
        type=number(float, 'of minutes, 0 or more', lambda n: n >= 0),
        metavar='MINUTES',
        help='write last.pth that often within epochs as well (default 15), 0 for never',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on a CPU')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size of this run'
    )
    parser.add_argument('--seed', type=int, help='of weights, data order and augmentation')
    parser.add_argument('--deterministic', action='store_true', help='no operators whose result varies, where possible')
    parser.add_argument(
        '--log', nargs='+', default=[], choices=['tensorboard', 'wandb'], help='send the scalars there as well'
    )


def test(parser: Parser) -> None:
    """Options of ``tools/test.py``."""
    parser.description = 'Evaluate a checkpoint.'
    add_config(parser, 'test')
    add_work_dir(parser, 'work_dirs/CONFIG_test')
    add_launcher(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='FILE.pkl', help='save the predictions')
    parser.add_argument('--show-dir', metavar='DIR', help='save the images with their predictions')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: as the config describes it, else three sizes, each as it is and flipped',
    )


def check(parser: Parser) -> None:
    """Options of ``tools/check.py``."""
    parser.description = 'Scan the data of a config, build its model and take one training step; nothing is written.'
    add_config(parser, 'train', 'val')


def overfit(parser: Parser) -> None:
    """Options of ``tools/overfit.py``."""
    parser.description = (
        'Train a detector on a few of its training images until it knows them by heart: the first thing to try when '
        'the mAP stays at 0. Exits with 0 if it does, with 1 and what to look at if it does not.'
    )
    add_config(parser, 'train')
    add_work_dir(parser, 'work_dirs/CONFIG_overfit')
    add_backbone(parser)
    count = number(int, 'above 0', lambda n: n > 0)
    share = number(float, 'above 0 and up to 1', lambda n: 0 < n <= 1)
    parser.add_argument(
        '--images', type=count, default=8, metavar='N', help='training images with objects (default %(default)s)'
    )
    parser.add_argument('--steps', type=count, default=2000, metavar='N', help='steps at most (default %(default)s)')
    parser.add_argument('--minutes', type=float, default=60, metavar='N', help='minutes at most (default %(default)s)')
    parser.add_argument(
        '--target', type=share, default=0.95, metavar='MAP', help='COCO mAP to reach (default %(default)s)'
    )
    parser.add_argument('--lr', type=float, default=LR, help='learning rate (default %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0, help='of the choice of images and of the weights (default %(default)s)'
    )


def predict(parser: Parser) -> None:
    """Options of ``vitdense predict``."""
    parser.description = 'Find objects or classes in pictures and videos, and write pictures, maps and a COCO file.'
    count = number(int, 'above 0', lambda n: n > 0)
    share = number(float, 'from 0 to 1', lambda n: 0 <= n <= 1)
    parser.add_argument('sources', nargs='+', metavar='SOURCE', help='image, video, folder, pattern or URL')
    parser.add_argument(
        '--model',
        required=True,
        metavar='MODEL',
        help='work dir of a training, config with --checkpoint, or exported file',
    )
    parser.add_argument('--checkpoint', metavar='FILE', help='file, URL, hf-hub:OWNER/NAME or official release')
    parser.add_argument(
        '--out', type=Path, default=Path('predictions'), metavar='DIR', help='folder of the results (%(default)s)'
    )
    parser.add_argument('--overwrite', action='store_true', help='remove earlier predictions in it')
    parser.add_argument(
        '--threshold', type=share, default=0.3, metavar='SCORE', help='lowest score of a detection (%(default)s)'
    )
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='classes to detect, all by default')
    parser.add_argument('--batch-size', type=count, default=1, metavar='N', help='pictures at once (%(default)s)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ...; a GPU by default, if there is one')
    parser.add_argument('--tile', type=count, metavar='N', help='look at larger pictures in tiles of N pixels')
    parser.add_argument(
        '--overlap',
        type=number(float, 'from 0 to below 1', lambda n: 0 <= n < 1),
        default=0.2,
        metavar='SHARE',
        help='of a tile, that the next one covers again (%(default)s)',
    )
    parser.add_argument('--no-pictures', dest='pictures', action='store_false', help='draw nothing')
    parser.add_argument(
        '--label-studio',
        nargs='?',
        const=LOCAL_FILES,
        metavar='URL',
        help='write tasks of Label Studio as well, whose images are at URL (default %(const)s)',
    )


def export(parser: Parser) -> None:
    """Options of ``vitdense export``."""
    parser.description = (
        'Write a trained model as one file, for pictures of any number and size, and compare it with the original.'
    )
    parser.add_argument('model', metavar='DIR_OR_CONFIG', help='work dir of a training, or a config with --checkpoint')
    parser.add_argument('--checkpoint', metavar='FILE', help='file, URL, hf-hub:OWNER/NAME or official release')
    parser.add_argument(
        '--to',
        choices=list(FORMATS),
        help='onnx for onnxruntime and other runtimes (by default), torch for a program of torch.export, safetensors '
        'for weights with a description of the model',
    )
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='by default model.onnx, .pt2 or .safetensors in the work dir'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace it')
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='IMAGE',
        help='to compare file and model on, by default eight of the validation',
    )
    parser.add_argument('--evaluate', action='store_true', help='compare the metrics of the whole validation as well')
    parser.add_argument(
        '--half',
        action='store_true',
        help='products of half precision, all else as it was; the metrics of the validation have to be equal',
    )


def benchmark(parser: Parser) -> None:
    """Options of ``vitdense benchmark``."""
    parser.description = 'Measure parameters, FLOPs, latency, memory and the time of each part of a model, or of two.'
    count = number(int, 'above 0', lambda n: n > 0)
    what = 'work dir, config (with random weights if it has no --checkpoint), or exported file'
    parser.add_argument('model', metavar='MODEL', help=what)
    parser.add_argument('--checkpoint', metavar='FILE', help='file, URL, hf-hub:OWNER/NAME or official release')
    parser.add_argument('--vs', metavar='MODEL2', help='another one, which takes turns with the first')
    parser.add_argument('--vs-checkpoint', metavar='FILE', help='its checkpoint')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ...; a GPU by default, if there is one')
    parser.add_argument('--batch-size', type=count, default=1, metavar='N', help='pictures at once (%(default)s)')
    parser.add_argument(
        '--size', type=count, nargs=2, metavar=('H', 'W'), help='of the pictures, by default as a test resizes them'
    )
    parser.add_argument(
        '--images', nargs='+', metavar='IMAGE', help='to predict, by default of the validation if they are there'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: bfloat16 on a CPU, float16 on a GPU')
    parser.add_argument('--compile', action='store_true', help='torch.compile backbone, neck and head')
    parser.add_argument('--rounds', type=count, default=30, metavar='N', help='(%(default)s)')
    parser.add_argument('--threads', type=count, metavar='N', help='on a CPU, by default those of PyTorch')


def flops(parser: Parser) -> None:
    """Options of ``tools/get_flops.py``."""
    parser.description = 'Count parameters and FLOPs (multiply-adds) of one image.'
    parser.add_argument('config', help='config file, or one of an installed package: mmdet::retinanet/...')
    parser.add_argument('--shape', type=int, nargs=2, default=[800, 1280], metavar=('H', 'W'), help='image size')


def convert(parser: Parser) -> None:
    """Options of ``tools/convert_checkpoint.py``."""
    parser.description = (
        'Rewrite a checkpoint in another layout. Training and testing convert what they load by themselves.'
    )
    parser.add_argument('source', metavar='SRC', help='weights in any layout that vitdense reads: a file or a URL')
    parser.add_argument('target', type=Path, metavar='DST', help='.safetensors, or else a file of torch.save')
    parser.add_argument(
        '--to',
        default='vitdense',
        metavar='LAYOUT',
        help='%(default)s (default), official, timm, mmdet, mmseg, transformers, detectron2: where the model exists '
        'there',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace DST')


def compare(parser: Parser) -> None:
    """Options of ``vitdense compare`` and ``tools/compare_runs.py``."""
    parser.description = 'Draw a metric of several runs against epoch and time.'
    parser.add_argument('runs', nargs='+', type=Path, help='work dirs; their names are those of the curves')
    parser.add_argument('--metric', help='column of results.csv, e.g. val/coco/bbox_mAP (default: the main metric)')
    parser.add_argument('--out', type=Path, default='comparison.png', help='picture (default %(default)s)')


COMMANDS: dict[str, Callable[[Parser], None]] = {
    command.__name__: command
    for command in (train, test, check, overfit, predict, export, benchmark, convert, flops, compare)
}
"""The options of each command, by the name of its file in this folder."""


def number(kind: Callable[[str], Any], expected: str, valid: Callable[[Any], bool]) -> Callable[[str], Any]:
    """The type of an option whose value is a number within limits."""

    def read(text: str) -> Any:
        value = kind(text)
        if not valid(value):
            raise argparse.ArgumentTypeError(f'expected a number {expected}, found {text}')
        return value

    read.__name__ = kind.__name__  # argparse names it where the text is no number
    return read


def add_config(parser: argparse.ArgumentParser, *splits: str) -> None:
    """The config and what is changed in it, and how the data of ``splits`` are checked."""
    parser.set_defaults(splits=splits)
    parser.add_argument('config', help='config file, or one of an installed package: mmdet::retinanet/...')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE', help='override settings of the config'
    )
    data = parser.add_argument_group('data')
    data.add_argument(
        '--data',
        type=Path,
        metavar='PATH',
        help="your data in the place of the config's: a folder, or the file that describes it (data.yaml, a COCO json)",
    )
    data.add_argument('--format', choices=list(KNOWN), help='of --data, where a folder has several')
    data.add_argument(
        '--val-fraction',
        type=number(float, 'above 0 and up to 1', lambda n: 0 < n <= 1),
        default=FRACTION,
        metavar='F',
        help='share of the images of --data that validate, where they have no validation (default %(default)s)',
    )
    data.add_argument(
        '--check',
        choices=['full', 'sample', 'off'],
        default='sample',
        help='open all images, some hundreds (the default), or none; annotation files are always read whole',
    )
    data.add_argument(
        '--lenient',
        action='store_true',
        help='leave out what is wrong with the data, and count it, instead of stopping',
    )


def add_work_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """The folder of a run, by ``default`` one of this name."""
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help=f'folder of logs and results, default {default}; DIR_run2, DIR_run3, ... if it is taken',
    )
    parser.add_argument('--overwrite', action='store_true', help='remove what the earlier run wrote in the work dir')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """How several processes are started."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Another backbone, and whether its weights are loaded."""
    parser.add_argument('--backbone', metavar='NAME', help='swap the backbone of the config, e.g. pvt_v2_b2, swin_tiny')
    parser.add_argument(
        '--no-pretrained', dest='pretrained', action='store_false', help='train the backbone from random weights'
    )
