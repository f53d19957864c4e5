"""Rewrite a checkpoint in another layout: ``python tools/convert_checkpoint.py SRC DST --to timm``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('convert')
