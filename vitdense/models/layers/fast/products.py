"""Which library computes the matrix products of linear layers in float32 on a CPU: measured, kept, or forced.

Whether oneDNN or what PyTorch calls (MKL, OpenBLAS) is faster depends on the processor and the shapes. Results differ
in their last bits, so the choice has to be the same in all processes of a run, and in one that goes on from a
checkpoint: it is measured once on a machine, and then read from a file of the cache folder.
"""

import itertools
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdense.files import cache_folder, part_of
from vitdense.processor import processor_name

LIBRARIES = ('pytorch', 'onednn')
VARIABLE = 'VITDENSE_PRODUCTS'
PRODUCTS = ('forward', 'to input', 'to weight')
"""Of a linear layer: its result, and the gradients of its input and of its weight."""

LEAST = 2**24
"""Multiplications from which on another library than PyTorch's can be worth its call: others have to be forced."""
NARROW = 192
"""Layers with fewer channels than this at one end are a class of their own."""
PROBES = {'narrow': (1024, 96, 192), 'wide': (512, 256, 384)}
"""Rows, channels and output channels that stand for a class."""
SECONDS = 0.04
"""That measuring may take; what is not known by then stays with PyTorch."""
CLEARLY = 1.05
"""By what factor oneDNN has to be faster."""

Choice = frozenset[str]
"""Products and classes that oneDNN computes, as ``'forward narrow'``."""
PYTORCH: Choice = frozenset()
ONEDNN: Choice = frozenset(f'{product} {kind}' for product in PRODUCTS for kind in ('small', *PROBES))

_lock = threading.Lock()
_choice: Choice | None = None


def by_onednn(rows: int, channels: int, out_channels: int) -> tuple[bool, bool, bool]:
    """Which of the three :data:`PRODUCTS` of a linear layer oneDNN computes.

    Raises:
        ValueError: the environment variable forces a library that does not exist, or not here.
    """
    work = rows * channels * out_channels
    kind = 'small' if work < LEAST else 'narrow' if min(channels, out_channels) < NARROW else 'wide'
    chosen = _choice
    if not work or (kind == 'small' and chosen is None and VARIABLE not in os.environ):
        return False, False, False
    if chosen is None:
        with _lock:
            chosen = choose() if _choice is None else _choice
            use(chosen)
    forward, to_input, to_weight = (f'{product} {kind}' in chosen for product in PRODUCTS)
    return forward, to_input, to_weight


def use(chosen: Collection[str] | None) -> None:
    """Let oneDNN compute what is ``chosen`` from now on; ``None`` chooses again at the next product."""
    global _choice
    _choice = None if chosen is None else frozenset(chosen)


def choose() -> Choice:
    """What ``VITDENSE_PRODUCTS`` forces, else what is kept for this processor, PyTorch and number of threads.

    Where nothing is kept, it is measured, and kept. Of processes that measure at the same time all follow the first to
    be done. Where nothing can be kept, PyTorch computes all: the next process might measure something else.

    Raises:
        ValueError: the variable names a library that does not exist, or not here.
    """
    forced = os.environ.get(VARIABLE)
    if forced and forced not in LIBRARIES:
        raise ValueError(f'{VARIABLE}: expected {" or ".join(LIBRARIES)}, found {forced!r}')
    if forced == 'onednn' and not onednn_is_there():
        raise ValueError(f'{VARIABLE}: expected pytorch, found onednn, which this build of PyTorch does not have')
    if forced:
        return ONEDNN if forced == 'onednn' else PYTORCH
    if not has_avx512() or type(torch.empty(0, device='cpu')) is not Tensor:  # fake ones take no time
        return PYTORCH
    file = _file()
    kept = _read(file)
    return _keep(file, measure()) if kept is None else kept


def onednn_is_there() -> bool:
    """Whether PyTorch was built with the operator."""
    return hasattr(torch.ops.mkldnn, '_linear_pointwise')


def has_avx512() -> bool:
    """Whether the libraries can differ: without AVX-512 they compute with the same instructions."""
    return onednn_is_there() and 'AVX512' in torch.backends.cpu.get_cpu_capability()


def measure() -> Choice:
    """Time both libraries, in turn, within :data:`SECONDS`."""
    end = time.perf_counter() + SECONDS
    calls = {f'{product} {kind}': pair for kind, shape in PROBES.items() for product, pair in _probes(*shape).items()}
    best: dict[str, list[float]] = {name: [math.inf] * 2 for name in calls}
    for turn in itertools.count():
        for name, pair in calls.items():
            for which, call in enumerate(pair):
                start = time.perf_counter()
                if start > end:
                    return frozenset(name for name, (own, other) in best.items() if other * CLEARLY < own < math.inf)
                call()
                if turn:  # the first call prepares the next
                    best[name][which] = min(best[name][which], time.perf_counter() - start)
    raise AssertionError('time goes on')


def _probes(rows: int, channels: int, out_channels: int) -> dict[str, Sequence[Callable[[], Tensor]]]:
    """The products of a layer, each by PyTorch and by oneDNN."""
    x, weight, grad = (
        torch.ones(shape, device='cpu') for shape in ((rows, channels), (out_channels, channels), (rows, out_channels))
    )
    factors = (x, weight), (grad, weight.t()), (grad.t(), x.t())
    return {
        product: (partial(F.linear, *pair), partial(multiply, *pair, None))
        for product, pair in zip(PRODUCTS, factors, strict=True)
    }


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` of rows (N, C) by oneDNN, without a gradient.

    A weight that is neither dense nor transposed, such as one of strides of 0, would take a path hundreds of times
    slower.
    """
    if not weight.is_contiguous() and not weight.t().is_contiguous():
        weight = weight.contiguous() if weight.stride(0) >= weight.stride(1) else weight.t().contiguous().t()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')


def _file() -> Path:
    about = f'{processor_name()} torch {torch.__version__} threads {torch.get_num_threads()}'
    return cache_folder('products') / f'{re.sub(r"[^a-zA-Z0-9.+]+", "-", about)}.json'


def _read(file: Path) -> Choice | None:
    """What a file keeps; ``None`` where there is none, or another one."""
    with suppress(OSError, ValueError, TypeError):
        kept = frozenset(json.loads(file.read_text('utf-8'))['onednn'])
        return kept if kept <= ONEDNN else None
    return None


def _keep(file: Path, chosen: Choice) -> Choice:
    """Write what was measured, unless another process did; what is kept now."""
    part = part_of(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(dict(onednn=sorted(chosen))), 'utf-8')
        with suppress(FileExistsError):
            os.link(part, file)  # unlike a rename, it fails where the file is there
        if _read(file) is None:
            os.replace(part, file)  # one that cannot be read
    except OSError:
        return PYTORCH
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return _read(file) or PYTORCH
