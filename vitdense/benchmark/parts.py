"""Which parts of a network a prediction spends its time in."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

PARTS = ('preprocessing', 'backbone', 'neck', 'head', 'postprocessing')
"""In the order in which they run. Postprocessing is what happens outside of all modules: boxes, NMS, masks, maps."""

KNOWN = {
    'data_preprocessor': 'preprocessing',
    'backbone': 'backbone',
    'image_encoder': 'backbone',  # of mmseg's SAN
    'neck': 'neck',
}
"""Attributes of networks that are parts; all others belong to the head."""

Wrap = Callable[[str, Callable], Callable]


def part_of(name: str) -> str:
    """The part that a module belongs to, by its name in the network."""
    return next((KNOWN[word] for word in name.split('.') if word in KNOWN), 'head')


def outermost(network: nn.Module, step: Callable[[], Any]) -> list[str]:
    """Names of the modules that ``step`` calls, without those that others of them call and the network itself."""
    found: dict[str, None] = {}
    inside = False

    def wrap(name: str, forward: Callable) -> Callable:
        def noted(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:
                return forward(*args, **kwargs)
            found[name], inside = None, True
            try:
                return forward(*args, **kwargs)
            finally:
                inside = False

        return noted

    with _wrapped(network, [name for name, _ in network.named_modules() if name], wrap):
        step()
    return list(found)


@contextmanager
def timed(network: nn.Module, names: Collection[str], synchronize: Callable[[], None]) -> Iterator[dict[str, float]]:
    """Add up, within it, the seconds that modules take.

    Args:
        network: has them.
        names: of the modules, none of which calls another one.
        synchronize: waits for what was begun on the device.

    Yields:
        Seconds by part, without those of the postprocessing, which is in no module.
    """
    spent: dict[str, float] = defaultdict(float)

    def wrap(name: str, forward: Callable) -> Callable:
        def clocked(*args: Any, **kwargs: Any) -> Any:
            synchronize()
            start = time.perf_counter()
            try:
                return forward(*args, **kwargs)
            finally:
                synchronize()
                spent[part_of(name)] += time.perf_counter() - start

        return clocked

    with _wrapped(network, names, wrap):
        yield spent


@contextmanager
def _wrapped(network: nn.Module, names: Collection[str], wrap: Wrap) -> Iterator[None]:
    """Replace ``forward`` of modules, which heads call without the hooks of a module, and put it back."""
    modules = [(name, network.get_submodule(name)) for name in names]
    before = [(module, vars(module).get('forward')) for _, module in modules]
    for name, module in modules:
        module.forward = wrap(name, module.forward)
    try:
        yield
    finally:
        for module, forward in before:
            if forward is None:
                del module.forward
            else:
                module.forward = forward
