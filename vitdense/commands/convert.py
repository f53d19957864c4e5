"""``tools/convert_checkpoint.py``: rewrite a checkpoint in another layout."""

import argparse
import sys
from pathlib import Path

from vitdense.checkpoint.write import OURS, rewrite


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``tools/convert_checkpoint.py``."""
    parser.description = (
        'Rewrite a checkpoint in another layout. Training and testing convert what they load by themselves.'
    )
    parser.add_argument('source', metavar='SRC', help='weights in any layout that vitdense reads: a file or a URL')
    parser.add_argument('target', type=Path, metavar='DST', help='.safetensors, or else a file of torch.save')
    parser.add_argument(
        '--to',
        default=OURS,
        metavar='LAYOUT',
        help=f'{OURS} (default), official, timm, mmdet, mmseg, transformers, detectron2: where the model exists there',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace DST')


def run(args: argparse.Namespace) -> int:
    """Rewrite, and print what was found and written; 2 where that is not possible."""
    try:
        print(*rewrite(args.source, args.target, args.to, args.overwrite), sep='\n')
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0
