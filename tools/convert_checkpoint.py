"""Rewrite a checkpoint in another layout: ``python tools/convert_checkpoint.py SRC DST --to timm``."""

import argparse
from pathlib import Path

from vitdense.checkpoint.rewrite import OURS, rewrite

if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description='Rewrite a checkpoint in another layout. Training and testing convert what they load by themselves.'
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
    args = parser.parse_args()
    try:
        print(*rewrite(args.source, args.target, args.to, args.overwrite), sep='\n')
    except (OSError, ValueError) as error:
        parser.exit(2, f'error: {error}\n')
