"""What is drawn for an image depends on the seed and its place, and the place on nothing but the order of the data."""

import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets import ClassAwareSampler, GroupMultiSourceSampler, MultiImageMixDataset, MultiSourceSampler
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    DefaultSampler,
    InfiniteSampler,
    RepeatDataset,
)
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner as BareRunner
from support.numbers_drawn import Numbers
from torch.utils.data import BatchSampler, RandomSampler

from vitdense.datasets import draws
from vitdense.datasets.draws import (
    Batch,
    PlacedBatches,
    SeededImages,
    own_generators,
    pipelines_of,
    place_draws,
    reseed,
)


def passes(seed: int, workers: int, number: int = 3, **settings) -> list[list[float]]:
    config = dict(
        batch_size=2, num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers(),
        **settings,
    )  # fmt: skip
    loader = BareRunner.build_dataloader(config, seed=seed)
    place_draws(loader, seed)
    drawn = []
    for loader.batch_sampler.data_pass in range(number):
        drawn.append(torch.cat([torch.cat(batch['inputs']) for batch in loader]).tolist())
        np.random.rand(3)
    return drawn


@pytest.mark.slow
def test_workers_make_no_difference_and_no_draw_is_repeated():
    expected = passes(3, 0)
    assert len({value for drawn in expected for value in drawn}) == 18
    assert passes(3, 1, persistent_workers=True) == expected
    assert passes(3, 2, persistent_workers=False) == expected
    assert not {value for drawn in passes(4, 0) for value in drawn} & {value for drawn in expected for value in drawn}


@pytest.mark.slow
def test_workers_that_are_not_forked_draw_the_same():
    assert passes(3, 1, 1, multiprocessing_context='spawn') == passes(3, 0, 1)


class Sized:
    """Images of two sizes with a class each, in two parts."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, length: int = 12) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def get_data_info(self, index: int) -> dict:
        return dict(width=40 + 30 * (index % 3 > 0), height=50)

    def get_cat_ids(self, index: int) -> list[int]:
        return [index % 2]


def batches(kind: str) -> BatchSampler:
    """A new batch sampler, as at the start of a run."""
    data = Sized()
    parts = SimpleNamespace(datasets=[Sized(6), Sized(8)], cumulative_sizes=[6, 14])
    if kind == 'aspect ratios':
        return AspectRatioBatchSampler(DefaultSampler(data, seed=0), 2)
    if kind == 'batches by themselves':
        return BatchSampler(RandomSampler(data), 3, False)
    sampler = {
        'default': lambda: DefaultSampler(data, seed=0),
        'infinite': lambda: InfiniteSampler(data, seed=0),
        'classes': lambda: ClassAwareSampler(data, seed=0),
        'sources': lambda: MultiSourceSampler(parts, 5, [2, 3], seed=0),
        'groups of sources': lambda: GroupMultiSourceSampler(
            SimpleNamespace(**vars(parts), __len__=lambda: 14), 5, [2, 3], seed=0
        ),
    }[kind]()
    return BatchSampler(sampler, 5, False)


KINDS = ('default', 'infinite', 'aspect ratios', 'classes', 'sources', 'groups of sources', 'batches by themselves')


def taken(kind: str, skip: int, number: int, data_pass: int = 0) -> list[Batch]:
    placed = PlacedBatches(batches(kind), 7)
    placed.skip, placed.data_pass = skip, data_pass
    np.random.rand(skip)
    found = []
    for batch in placed:
        found.append(batch)
        torch.rand(1), np.random.rand()
        if len(found) == number:
            break
    return found


@pytest.mark.parametrize('kind', KINDS)
def test_a_sampler_starts_at_its_place(kind):
    whole = taken(kind, 0, 5)
    assert taken(kind, 2, 3) == whole[2:5]
    positions = [batch.first for batch in whole]
    assert positions == np.cumsum([0, *(len(batch.indices) for batch in whole)])[: len(whole)].tolist()


def test_batches_left_out_beyond_the_end_of_a_pass_remain():
    placed = PlacedBatches(batches('default'), 7)
    placed.skip = 5
    assert list(placed) == []
    assert placed.skip == 2
    assert (len(placed), placed.batch_size, placed.drop_last) == (3, 5, False)
    assert len(pickle.loads(pickle.dumps(placed))) == 3


def test_two_processes_draw_for_the_images_of_a_global_batch_what_one_draws(monkeypatch):
    def images(rank: int, processes: int) -> list[dict[int, float]]:
        monkeypatch.setattr(draws, 'get_rank', lambda: rank)
        monkeypatch.setattr(draws, 'get_world_size', lambda: processes)
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (rank, processes))
        sampler = DefaultSampler(Numbers(), seed=0)
        load = SeededImages(Numbers())
        found = []
        for batch in PlacedBatches(BatchSampler(sampler, 4 // processes, False), 7):
            loaded = (image['inputs'].item() for image in load(batch))
            found.append(dict(zip(batch.indices, loaded, strict=True)))
        return found

    one = images(0, 1)
    two = [a | b for a, b in zip(images(0, 2), images(1, 2), strict=True)]
    assert two[0] == one[0]
    assert all(two[1][index] == value for index, value in one[1].items())


@TRANSFORMS.register_module()
class DrawsThree:
    """A number of each generator."""

    def __call__(self, data: dict) -> dict:
        return dict(data, drawn=(random.random(), np.random.rand(), torch.rand(()).item()))


@TRANSFORMS.register_module()
class MixesOne:
    """Draws another image, as mosaics do."""

    def get_indexes(self, dataset: BaseDataset) -> int:
        return random.randint(0, len(dataset) - 1)

    def __call__(self, data: dict) -> dict:
        return dict(data, drawn=(*data['drawn'], *data['mix_results'][0]['drawn']))


class Few(BaseDataset):
    """Four images of two classes."""

    METAINFO = dict(classes=('a', 'b'))

    def load_data_list(self) -> list[dict]:
        return [dict(img_path=f'{i}.jpg', label=i % 2) for i in range(4)]

    def get_cat_ids(self, index: int) -> list[int]:
        return [index % 2]


def wrapped(kind: str):
    few = Few(pipeline=[dict(type='DrawsThree')], serialize_data=False)
    return {
        'plain': lambda: few,
        'concatenated': lambda: ConcatDataset([few, Few(pipeline=[dict(type='DrawsThree')])]),
        'repeated': lambda: RepeatDataset(few, 2),
        'balanced': lambda: ClassBalancedDataset(few, 0.9),
        'mixed': lambda: MultiImageMixDataset(few, [dict(type='MixesOne')]),
    }[kind]()


@pytest.mark.parametrize('kind', ['plain', 'concatenated', 'repeated', 'balanced', 'mixed'])
def test_wrappers_of_data_sets_are_seeded_once_for_each_image(kind):
    load = SeededImages(wrapped(kind))
    batch = Batch([0, 1, 0], seed=5, data_pass=1, first=6, step=2)
    images = [image['drawn'] for image in load(batch)]
    assert len({value for drawn in images for value in drawn}) == 3 * (6 if kind == 'mixed' else 3)
    random.random()
    later = load(batch._replace(indices=[1, 0], first=8))
    assert [image['drawn'] for image in later] == images[1:]


def test_a_data_set_that_is_asked_directly_seeds_nothing():
    loader = BareRunner.build_dataloader(
        dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=Numbers()), seed=0
    )
    place_draws(loader, 0)
    place_draws(loader, 0)
    assert type(loader.batch_sampler.batches) is BatchSampler
    np.random.seed(2)
    drawn = [loader.dataset[0]['inputs'].item() for _ in range(2)]
    np.random.seed(2)
    assert drawn == torch.tensor(np.random.rand(2).tolist()).tolist()
    assert len(loader.dataset.__getitems__([0, 1])) == 2, 'also where a batch comes from elsewhere'


class Seedable:
    """Has the method of a pipeline of Albumentations."""

    def set_random_seed(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def draw(self) -> float:
        return self.generator.random()


GENERATORS = {
    'Python': (random.Random, lambda generator: generator.random()),
    'old NumPy': (np.random.RandomState, lambda generator: generator.rand()),
    'NumPy': (np.random.default_rng, lambda generator: generator.random()),
    'PyTorch': (torch.Generator, lambda generator: torch.rand((), generator=generator).item()),
    'Albumentations': (Seedable, Seedable.draw),
}


@pytest.mark.parametrize('kind', GENERATORS)
def test_generators_of_transforms_are_found_and_seeded(kind):
    make, draw = GENERATORS[kind]

    class Keeps:
        def __init__(self, generator) -> None:
            self.own = generator

        def __call__(self, data: dict) -> dict:
            return data

    generator = make()
    nested = SimpleNamespace(transforms=[[Keeps(generator)]])
    dataset = SimpleNamespace(dataset=SimpleNamespace(pipeline=SimpleNamespace(transforms=[Keeps(3), nested])))
    assert list(own_generators(list(pipelines_of(dataset)))) == [generator]
    reseed(generator, 4)
    first = draw(generator)
    draw(generator)
    reseed(generator, 4)
    assert draw(generator) == first
    reseed(generator, 5)
    assert draw(generator) != first


def test_a_pipeline_that_a_hook_puts_in_place_is_seeded_as_well():
    class Keeps:
        def __init__(self) -> None:
            self.own = np.random.default_rng()

        def __call__(self, data: dict) -> dict:
            return dict(data, drawn=self.own.random())

    few = Few(pipeline=[Keeps()], serialize_data=False)
    load, batch = SeededImages(few), Batch([0, 1], seed=5, data_pass=1, first=6, step=2)
    first = [image['drawn'] for image in load(batch)]
    few.pipeline = Few(pipeline=[Keeps()], serialize_data=False).pipeline
    assert [image['drawn'] for image in load(batch)] == first
