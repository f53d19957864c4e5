"""Random numbers of the data as a function of where an image comes, not of what was drawn before it.

A batch sampler says with each batch which pass over the data it belongs to and where in it its images come. Before an
image is loaded, the generators are seeded from the seed of the run and this place. So it makes no difference which
worker loads it, how many there are, whether they are kept for the next pass, or where a run goes on.
"""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

ORDER, IMAGE, EPOCH, STEP, VALIDATION = range(5)
"""What is drawn, the first number of a key: equal places of two kinds draw different numbers."""


def seed_host(*key: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch on the CPU from whole numbers below 2 ** 64."""
    whole = 0
    for number in key:
        whole = whole << 64 | number
    random.seed(whole)  # which makes use of all its digits, as the seeds of the others do not
    np.random.seed(random.getrandbits(32))
    torch.default_generator.manual_seed(random.getrandbits(63))


def seed_process(*key: int) -> None:
    """Seed what a model draws from: the generators of :func:`seed_host` and those of the GPUs."""
    seed_host(*key)
    if torch.cuda.is_initialized():  # otherwise PyTorch keeps the seed with a traceback of this line, which takes long
        torch.cuda.manual_seed_all(torch.default_generator.initial_seed())


class Batch(NamedTuple):
    """Indices of a batch, and where its images come.

    Attributes:
        indices: in the data set, whatever it is asked for.
        seed: of the run.
        data_pass: number of the pass over the data.
        first: place of the first image in the pass, those of all processes counted.
        step: from one image to the next: the number of processes, which take turns.
    """

    indices: list
    seed: int
    data_pass: int
    first: int
    step: int


class PlacedBatches(BatchSampler):
    """The batches of another batch sampler, with their places.

    Random numbers that a sampler draws outside generators of its own depend on the place as well.

    Args:
        batches: the other one; what else is asked of this one is answered by it.
        seed: of the run.

    Attributes:
        data_pass: number of the pass that the next iteration is.
        skip: batches to leave out of it. Their indices are drawn, for what follows depends on them; no image is loaded.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.data_pass = self.skip = 0

    def __iter__(self) -> Iterator[Any]:
        seed_host(ORDER, self.seed, self.data_pass, 0)
        place, processes, number = get_rank(), get_world_size(), 0
        batches = iter(self.batches)
        while True:
            number += 1
            seed_host(ORDER, self.seed, self.data_pass, number)
            indices = next(batches, None)
            if indices is None:
                return
            if self.skip:
                self.skip -= 1
            else:
                yield Batch(indices, self.seed, self.data_pass, place, processes)
            place += processes * len(indices)

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        if name == 'batches':  # of a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self.batches, name)


class SeededImages:
    """Loads the images of a batch; what is drawn for one depends on its place.

    PyTorch's loader takes it in place of ``dataset[index]``, which stays as it is for everybody else.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._pipelines: list = []
        self._own: list = []

    def __call__(self, batch: Any) -> list:
        if not isinstance(batch, Batch):
            return [self.dataset[index] for index in batch]
        pipelines = list(pipelines_of(self.dataset))
        if list(map(id, pipelines)) != list(map(id, self._pipelines)):  # as hooks exchange them in mid-training
            self._pipelines, self._own = pipelines, list(own_generators(pipelines))
        images = []
        for number, index in enumerate(batch.indices):
            seed_host(IMAGE, batch.seed, batch.data_pass, batch.first + number * batch.step)
            for generator in self._own:
                reseed(generator, random.getrandbits(32))
            images.append(self.dataset[index])
        return images


def place_draws(loader: DataLoader, seed: int) -> None:
    """Let what ``loader`` draws depend on the place of a batch and of an image.

    Loaders that do not ask a data set for batches of indices are left as they are.
    """
    batches = loader.batch_sampler
    if batches is None or isinstance(batches, PlacedBatches) or isinstance(loader.dataset, IterableDataset):
        return
    # a loader refuses another batch sampler once it is built, because of iterators that may be there; there is none
    vars(loader)['batch_sampler'] = PlacedBatches(batches, seed)
    vars(loader.dataset)['__getitems__'] = SeededImages(loader.dataset)


def pipelines_of(dataset: Any) -> Iterator[Any]:
    """The transforms of a data set and of those that it wraps."""
    for child in (getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())):
        if child is not None:
            yield from pipelines_of(child)
    if (pipeline := getattr(dataset, 'pipeline', None)) is not None:
        yield pipeline


def own_generators(part: Any) -> Iterator[Any]:
    """Generators that transforms keep for themselves, in a pipeline or a list of any."""
    if isinstance(part, list | tuple):
        for child in part:
            yield from own_generators(child)
    elif is_generator(part):
        yield part
    else:
        yield from own_generators(getattr(part, 'transforms', None) or ())
        if callable(part):
            yield from filter(is_generator, getattr(part, '__dict__', {}).values())


def is_generator(value: Any) -> bool:
    """Whether random numbers are drawn from it; pipelines of Albumentations have a method that seeds them."""
    kinds = (random.Random, np.random.RandomState, np.random.Generator, torch.Generator)
    return isinstance(value, kinds) or hasattr(type(value), 'set_random_seed')


def reseed(generator: Any, seed: int) -> None:
    """Seed what :func:`is_generator` knows."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif hasattr(type(generator), 'set_random_seed'):
        generator.set_random_seed(seed)
    else:
        generator.seed(seed)
