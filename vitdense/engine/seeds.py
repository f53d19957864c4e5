"""The seed of a run that goes on."""

from typing import Any

from vitdense.checkpoint.fetch import fetch
from vitdense.checkpoint.read import read
from vitdense.console import warn


def resumed_randomness(checkpoint: str, randomness: dict[str, Any] | None) -> dict[str, Any]:
    """``randomness`` with the seed of a checkpoint, whether it was given or drawn; where it has none, as it is.

    Raises:
        FileNotFoundError, ValueError: no checkpoint that can be read.
    """
    randomness = dict(randomness or {})
    given, seed = randomness.get('seed'), (read(fetch(checkpoint)).get('meta') or {}).get('seed')
    if isinstance(seed, int):
        randomness['seed'] = seed
        if given not in (None, seed):
            warn(f'seed {given} is not used: {checkpoint} has seed {seed}, and its run goes on with it')
    return {'seed': None, **randomness}
