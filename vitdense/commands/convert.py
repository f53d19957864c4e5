"""``tools/convert_checkpoint.py``: rewrite a checkpoint in another layout."""

import argparse

from vitdense.checkpoint.write import rewrite
from vitdense.untrusted.text import visible


def run(args: argparse.Namespace) -> None:
    """Rewrite, and print what was found and written.

    Raises:
        OSError, ValueError: that is not possible.
    """
    print(*map(visible, rewrite(args.source, args.target, args.to, args.overwrite)), sep='\n')
