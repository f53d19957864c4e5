"""Back end ``numba``: kernels for CPUs that need no C++ compiler, compiled by numba at the first call and kept."""

import hashlib
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vitdense.files import cache_folder

OLDEST = (0, 60)
READS_TO_COPY = 8
"""So many reads of each pixel pay for a copy of a head's map, whose pixels lie side by side: as in ``csrc/cpu.cpp``."""

logger = logging.getLogger('vitdense')
_lock = threading.Lock()


@cache
def unavailable(device: torch.device) -> str | None:
    """Why it cannot run on ``device``, or None."""
    if device.type != 'cpu':
        return f'it runs on CPUs, not on {device.type}'
    if importlib.util.find_spec('numba') is None:
        return 'numba is not installed: pip install numba'
    import numba

    if tuple(map(int, numba.__version__.split('.')[:2])) < OLDEST:
        return f'numba {numba.__version__} is too old: {".".join(map(str, OLDEST))} is needed'
    return None


def kernel(name: str) -> Callable[..., None]:
    """A function of :mod:`.numba_kernels`, which numba compiles at its first call and keeps in the cache folder."""
    with _lock:
        return _compiled(name)


@cache
def _compiled(name: str) -> Callable[..., None]:
    import numba

    from . import numba_kernels

    function, config = getattr(numba_kernels, name), cast(Any, numba.config)
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder())  # it is read when the function is made
    try:
        return numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # nor to a folder of numba's own
        logger.warning('ms_deform_attn: %s cannot be written to: numba compiles in each process', folder())
        return numba.njit(function, nogil=True)
    finally:
        config.CACHE_DIR = before


@cache
def folder() -> Path:
    """Where numba keeps what it has compiled of the sources as they are now: it looks at one of the two files alone."""
    sources = (Path(__file__).with_name(f'numba_{part}.py') for part in ('kernels', 'vectors'))
    digest = hashlib.sha256(b''.join(path.read_bytes() for path in sources))
    return cache_folder('ops') / f'numba-{digest.hexdigest()[:16]}'


def forward(value: Tensor, spatial_shapes: list[int], sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    b, q, m, _, points = attention_weights.shape
    pixels, width = value.shape[1], value.shape[3]
    out = value.new_empty(b, q, m * width)
    head, sizes, copies = head_of(value), sizes_of(spatial_shapes), worth_copying(value, attention_weights)
    arrays = [numbers_of(x) for x in (value, sampling_locations, attention_weights, out)]
    sites = sizes.repeat(points, axis=1)
    parts = 1 if copies else max(min(q // 64, 2 * torch.get_num_threads() // (b * m + 1)), 1)  # of the queries

    def run(image: int, first_head: int, part: int) -> None:
        source, base, stride = arrays[0], image * pixels * m * width + first_head * width, m * width
        if copies:
            source, base, stride = copy_of(head, source, base, stride, pixels), 0, width
        begin, end = (image * q + part * q // parts, image * q + (part + 1) * q // parts)
        outputs = begin * m + first_head, end * m, m
        call('forward', head, source, base, stride, *arrays[1:3], sites, *outputs, copies, arrays[3])

    in_threads(run, ((i, h, p) for i in range(b) for p in range(parts) for h in range(m)), b * m * parts)
    return out


def backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: list[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    b, q, m, levels, points = attention_weights.shape
    pixels, width = value.shape[1], value.shape[3]
    grads = [torch.empty_like(x) for x in (value, sampling_locations, attention_weights)]
    head, sizes, copies = head_of(value), sizes_of(spatial_shapes), worth_copying(value, attention_weights)
    source, locations, weights, by_output = map(numbers_of, (value, sampling_locations, attention_weights, grad_output))
    by_value, by_locations, by_weights = map(numbers_of, grads)
    together = levels if b * m >= torch.get_num_threads() else 1  # levels of a task, which no other one writes to

    def run(image: int, number: int, level: int) -> None:
        part = sizes[:, level : level + together]
        count, start = int((part[0] * part[1]).sum()), int(part[2, 0])
        sites = (part - [[0], [0], [start]]).astype(np.int32).repeat(points, axis=1)
        first = (image * pixels + start) * m * width + number * width
        maps, base, stride = source, first, m * width
        if copies:
            maps, base, stride = copy_of(head, source, first, stride, count), 0, width
        sums = np.zeros(count * width, np.float32)
        samples = levels * points, level * points
        outputs = image * q * m + number, (image + 1) * q * m, m
        arrays = by_output, sums, by_locations, by_weights
        call('backward', head, maps, base, stride, locations, weights, sites, *samples, *outputs, *arrays)
        call('copy_rows', head, sums, 0, width, by_value, first, m * width, count)

    tasks = [(i, h, level) for i in range(b) for level in range(0, levels, together) for h in range(m)]
    in_threads(run, tasks, len(tasks))
    return grads[0], grads[1], grads[2]


def copy_of(head: np.ndarray, source: np.ndarray, base: int, stride: int, rows: int) -> np.ndarray:
    """The map of a head, (S, D), its pixels one after the other."""
    copied = np.empty(rows * head.itemsize, source.dtype)
    call('copy_rows', head, source, base, stride, copied, 0, head.itemsize, rows)
    return copied


def call(name: str, *arguments: Any) -> None:
    """Run a kernel; say so where that took long, as numba had to compile it."""
    function: Any = kernel(name)
    known, start = len(function.signatures), time.perf_counter()
    function(*arguments)
    seconds = time.perf_counter() - start
    if len(function.signatures) > known and seconds > 1:
        logger.warning(
            'ms_deform_attn: numba took %.0f s to compile %s, once, and keeps it in %s', seconds, name, folder()
        )


def in_threads(run: Callable[..., None], tasks: Iterable[tuple[int, ...]], count: int) -> None:
    """Each task in one of as many threads as PyTorch uses; the kernels hold no lock of Python."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        for task in tasks:
            run(*task)
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(run, *task) for task in tasks]:
            future.result()


def worth_copying(value: Tensor, attention_weights: Tensor) -> bool:
    reads = 4 * attention_weights[0, :, 0].numel() if len(value) else 0  # of a head's map
    return value.shape[2] > 1 and reads >= READS_TO_COPY * value.shape[1]


def head_of(value: Tensor) -> np.ndarray:
    """Tells numba the number of channels by a type."""
    return np.empty(0, f'S{value.shape[3]}')


def sizes_of(spatial_shapes: list[int]) -> np.ndarray:
    """(3, L): height, width and number of the first pixel of each level."""
    sizes = np.array(spatial_shapes, np.int64).reshape(-1, 2)
    pixels = sizes.prod(1)
    return np.stack([*sizes.T, pixels.cumsum() - pixels]).astype(np.int32)


def numbers_of(tensor: Tensor) -> np.ndarray:
    """One dimension of them. What numba has no type for is an integer: unsigned for bfloat16, signed for float16."""
    flat = tensor.detach().reshape(-1)
    if tensor.dtype == torch.bfloat16:
        return flat.view(torch.int16).numpy().view(np.uint16)
    return flat.view(torch.int16).numpy() if tensor.dtype == torch.float16 else flat.numpy()
