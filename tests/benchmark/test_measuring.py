"""What is counted, timed and weighed of a model."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from vitdense.benchmark.complexity import complexity_of
from vitdense.benchmark.machine import extra_memory
from vitdense.benchmark.parts import outermost, timed
from vitdense.benchmark.rounds import Measured, take_turns


class Clock:
    """Time that passes only where a test lets it."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, 'perf_counter', lambda: self.now)


class Waits(nn.Module):
    """A part that takes some seconds, and calls its children."""

    def __init__(self, clock: Clock, seconds: float, *children: nn.Module) -> None:
        super().__init__()
        self.clock, self.seconds, self.inner = clock, seconds, nn.ModuleList(children)

    def forward(self) -> None:
        self.clock.now += self.seconds
        for child in self.inner:
            child()


class Detector(nn.Module):
    """As networks of mmdet and mmseg: a head is called with ``forward`` or without, a part twice, and one is not."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.data_preprocessor = Waits(clock, 1)
        self.backbone = Waits(clock, 2, Waits(clock, 3))
        self.roi_head = nn.Module()
        self.roi_head.bbox_head = Waits(clock, 7)
        self.mask_head = nn.ModuleList([Waits(clock, 11)])
        self.auxiliary_head = Waits(clock, 1000)

    def forward(self) -> None:
        self.data_preprocessor()
        self.backbone()
        self.backbone()
        self.roi_head.bbox_head.forward()
        self.mask_head[0]()
        self.clock.now += 13


class Turn:
    """A subject of ``take_turns`` with such a network, which keeps a diary."""

    def __init__(self, name: str, network: Detector, diary: list[str]) -> None:
        self.name, self.network, self.diary, self.products = name, network, diary, None
        self.outer = outermost(network, network)

    def memory(self) -> float:
        return 1.0

    def synchronize(self) -> None:
        pass

    def __call__(self) -> None:
        self.diary.append(self.name)
        self.network()


def test_time_is_that_of_the_outermost_modules(monkeypatch):
    clock = Clock(monkeypatch)
    network = Detector(clock)
    names = outermost(network, network)
    assert names == ['data_preprocessor', 'backbone', 'roi_head.bbox_head', 'mask_head.0']
    with timed(network, names, lambda: None) as spent:
        network()
    assert spent == {'preprocessing': 1, 'backbone': 10, 'head': 18}
    assert not any('forward' in vars(module) for module in network.modules())


def test_what_fails_leaves_the_network_as_it_was(monkeypatch):
    network = Detector(Clock(monkeypatch))
    network.mask_head[0] = nn.Identity()  # takes an argument
    with pytest.raises(TypeError):
        outermost(network, network)
    with pytest.raises(TypeError), timed(network, ['backbone', 'mask_head.0'], lambda: None):
        network()
    assert not any('forward' in vars(module) for module in network.modules())


def test_models_take_turns(monkeypatch):
    clock, diary = Clock(monkeypatch), []
    subjects = [Turn(name, Detector(clock), diary) for name in 'ab']
    first, second = take_turns(subjects, range(2))
    assert diary == list('aabbbbaa')  # once for the whole, once for the parts
    assert first.seconds == second.seconds == [42, 42]
    assert first.parts == {'preprocessing': [1, 1], 'backbone': [10, 10], 'head': [18, 18], 'postprocessing': [13, 13]}
    assert first.median('neck') is None


def test_percentiles():
    found = Measured(0.0, [float(n) for n in range(101)])
    assert (found.percentile(50), found.percentile(95)) == (50, 95)


def test_memory_is_what_is_added_at_the_peak():
    def step() -> int:
        return np.ones(8 * 10**6).sum()  # 64 MB, given back at the end

    assert extra_memory(step, 'cpu') == pytest.approx(64, abs=6)
    assert extra_memory(lambda: None, 'cpu') == pytest.approx(0, abs=2)


class Slides(nn.Module):
    """A segmentor whose windows have 16 x 16 pixels and overlap by half."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.test_cfg = dict(mode=mode)
        self.layer = nn.Conv2d(3, 5, 1, bias=False).requires_grad_(False)

    def forward(self, image: torch.Tensor, samples: list, mode: str) -> None:
        if mode == 'tensor':
            self.layer(image)
            return
        for top in range(0, image.shape[2] - 8, 8):
            for left in range(0, image.shape[3] - 8, 8):
                self.layer(image[..., top : top + 16, left : left + 16])


@pytest.mark.parametrize(
    ('mode', 'windows', 'pixels'),
    [('slide', True, 3 * 2 * 16 * 16), ('slide', False, 32 * 24), ('whole', True, 32 * 24)],
)
def test_all_windows_are_counted_where_they_are_asked_for(mode, windows, pixels):
    found = complexity_of(Slides(mode).eval(), (32, 24), windows)
    assert (found.parameters, found.flops) == (15, 15 * pixels)
