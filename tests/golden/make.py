"""Writes the losses that ``test_losses.py`` compares with: ``PYTHONPATH=tests python tests/golden/make.py [VERSION]``.

With the version of a release, a checkpoint of it and the losses after it are kept as well.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from support.golden import FAMILIES, KEPT_AT, RELEASED, Losses, losses_of, one_thread, processor, released

HERE = Path(__file__).parent


def main(version: str | None) -> None:
    """Write ``losses.json``, and what belongs to a release."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {family: losses_of(family, folder / family) for family in FAMILIES}
        write(HERE / 'losses.json', found)
        if version:
            after = {}
            for family in RELEASED:
                losses = Losses()
                save = dict(type='CheckpointHook', interval=KEPT_AT, by_epoch=False)
                with one_thread():
                    runner = released(family, folder / 'released' / family, losses)
                    runner.register_hook(save)
                    runner.train()
                after[family] = losses.values[KEPT_AT:]
                kept = HERE / 'releases' / version / f'{family.partition(",")[0].lower()}.pth'
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / 'released' / family / f'iter_{KEPT_AT}.pth', kept)
            write(HERE / 'releases' / version / 'losses.json', after)


def write(path: Path, losses: dict[str, list[float]]) -> None:
    """Write losses, and by which processor they were computed."""
    path.write_text(json.dumps(dict(processor=processor(), losses=losses), indent=1) + '\n')


if __name__ == '__main__':
    main(*(sys.argv[1:] or [None]))
