"""A model with the batch that it predicts again and again."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from typing import Any

import torch
from torch import nn

from vitdense.names import brief
from vitdense.predict.predictor import THRESHOLD, Predictor
from vitdense.predict.sources import Frame

from .complexity import Complexity, complexity_of, parameters_of
from .floor import Product, products_of
from .machine import extra_memory
from .parts import outermost, part_of

WARM_UP = 2
"""Calls before anything is measured: memory is found, kernels are chosen, and ``torch.compile`` is done."""


class Subject:
    """A model that predicts a batch; calling it does that once, from prepared pictures to results.

    Attributes:
        name: for people.
        weights: where they are from.
        predictor: the model.
        network: in PyTorch, None of a file that another library runs.
        device: where it computes, 'cpu' or 'cuda' with a number.
        hw: height and width of what the network gets, before its own padding.
        batch_size: number of pictures.
        outer: names of the modules that a prediction calls, see :func:`.parts.outermost`.
        complexity: None where it cannot be counted.
        parameters: None where they are not known.
        products: of a batch, see :func:`.floor.products_of`; None of a file that another library runs.
        in_pytorch: whether PyTorch computes.
        amp, compiled: whether it does so in mixed precision, or compiled.
    """

    def __init__(
        self,
        name: str,
        weights: str,
        predictor: Predictor,
        pictures: Sequence[Frame],
        batch_size: int = 1,
        hw: tuple[int, int] | None = None,
        amp: bool = False,
        compiled: bool = False,
    ) -> None:
        """Prepare a batch and predict it, until that takes no longer than it will.

        Args:
            name, weights, predictor, batch_size: see above.
            pictures: of one size; they are repeated where a batch has more.
            hw: what all pictures are stretched to, by default what a test makes of them.
            amp: mixed precision.
            compiled: ``torch.compile`` the modules.

        Raises:
            ValueError: it cannot predict pictures of this size, or not in this way.
        """
        self.name, self.weights, self.predictor, self.batch_size = name, weights, predictor, batch_size
        self.network: nn.Module | None = getattr(predictor, 'network', None)
        if hw is not None:
            predictor.fix_size(hw)
        self.frames = list(islice(cycle(pictures), batch_size))
        self.inputs = [predictor.prepare(frame) for frame in self.frames]
        first: Any = self.inputs[0]
        self.hw: tuple[int, int] = tuple((first['inputs'] if isinstance(first, dict) else first).shape[-2:])
        self.device = str(predictor.device)
        self.in_pytorch = predictor.engine == 'PyTorch'
        self.amp = amp and self.network is not None
        self.compiled = compiled and self.network is not None
        self.outer: list[str] = []
        self.parameters: int | None = None
        self.complexity: Complexity | None = None
        self.products: Counter[Product] | None = None
        self._warm_up('')
        if self.network is not None:
            self._examine(self.network)

    def _examine(self, network: nn.Module) -> None:
        self.parameters = parameters_of(network)
        self.outer = outermost(network, self)
        self.products = products_of(self, backward=False)
        try:
            self.complexity = complexity_of(network, self.hw, windows=True)
        except Exception:  # a network that predicts need not stand what is counted without data
            self.complexity = None
        if self.compiled:
            for name in self.outer:
                if part_of(name) != 'preprocessing' and 'extractor' not in name:  # of regions: it looks at values
                    module = network.get_submodule(name)
                    module.forward = torch.compile(module.forward)
            self._warm_up('--compile: ')

    def _warm_up(self, option: str) -> None:
        try:
            for _ in range(WARM_UP):
                self()
        except Exception as error:  # networks raise what they like
            size = ' x '.join(map(str, (self.batch_size, 3, *self.hw)))
            raise ValueError(
                f'{option}{self.name} fails in {self.runs_in} with {size} pixels: {brief(error)}'
            ) from error

    @property
    def runs_in(self) -> str:
        """What computes, and how."""
        half = str(torch.get_autocast_dtype(torch.device(self.device).type)).removeprefix('torch.')
        how = [f'{half} autocast'] * self.amp + ['compiled'] * self.compiled
        return ', '.join([self.predictor.engine, *how])

    def synchronize(self) -> None:
        """Wait for what was begun on the device."""
        if self.in_pytorch and self.device.startswith('cuda'):
            torch.cuda.synchronize(self.device)

    def memory(self) -> float:
        """Megabytes at the peak of a batch beyond those before it, weights thus left out; NaN if they are not known."""
        if not self.in_pytorch and not self.device.startswith('cpu'):
            return float('nan')
        with self.predictor.giving_back():
            if not self.in_pytorch:
                self()  # gives back what the calls before have kept
            return extra_memory(self, self.device)

    def __call__(self) -> None:
        with torch.autocast(torch.device(self.device).type) if self.amp else nullcontext():
            self.predictor.infer(self.frames, self.inputs, THRESHOLD)
        self.synchronize()
