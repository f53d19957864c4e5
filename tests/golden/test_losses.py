"""The losses of fifty steps of each family are what they were, and checkpoints of releases go on to the same losses.

Another processor, or another version of PyTorch, adds up in another order: there, 1e-5 of a loss may differ.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from support.golden import FAMILIES, KEPT_AT, RELEASED, STEPS, Losses, losses_of, one_thread, processor, released

HERE = Path(__file__).parent
RELEASES = sorted(path.name for path in (HERE / 'releases').iterdir())


def check(path: Path, family: str, found: list[float]) -> None:
    kept = json.loads(path.read_text())
    expected = kept['losses'][family]
    assert len(found) == len(expected)
    tolerance = 0 if kept['processor'] == processor() else 1e-5
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
def test_losses_are_what_they_were(family, tmp_path):
    found = losses_of(family, tmp_path)
    assert len(found) == STEPS
    assert np.ptp(found) > 1e-3 * max(found)
    check(HERE / 'losses.json', family, found)


@pytest.mark.parametrize('family', RELEASED)
@pytest.mark.parametrize('release', RELEASES)
def test_a_checkpoint_of_a_release_goes_on_to_the_same_losses(release, family, tmp_path):
    losses = Losses()
    home = HERE / 'releases' / release
    path = home / f'{family.partition(",")[0].lower()}.pth'
    with one_thread():
        runner = released(family, tmp_path, losses, resume=True, load_from=str(path))
        runner.train()
    assert runner.iter == KEPT_AT + len(losses.values)
    check(home / 'losses.json', family, losses.values)
