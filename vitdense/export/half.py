"""Half precision where it costs no accuracy: in the products, and nowhere else.

Norms, softmax, position encodings, interpolations, box decoding and selection stay in single precision, as do the last
products before a score, a box or a selection: sixteen bits have 11 of mantissa, half a pixel at a thousand.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, Node

ATEN = torch.ops.aten
PRODUCTS = {
    ATEN.linear.default,
    ATEN.conv2d.default,
    ATEN.conv2d.padding,
    ATEN.conv_transpose2d.input,
    ATEN.matmul.default,
    ATEN.bmm.default,
    ATEN.mm.default,
    ATEN.addmm.default,
}
ATTENTION = ATEN.scaled_dot_product_attention.default
SELECTIONS = ('aten.topk', 'aten.argmax', 'aten.sort', 'vitdense.')
"""What operators that choose are named like; those of this package choose detections, and pool regions."""

MODULES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.MultiheadAttention)
"""Whose weights are factors of products."""


def in_half(program: ExportedProgram) -> ExportedProgram:
    """Let the products of a recorded model be of half precision, in place; weights of products are stored so."""
    graph = program.graph_module.graph
    for node in list(graph.find_nodes(op='call_function', target=ATTENTION)):
        _spell_out(graph, node)
    last = set(_before_decisions(graph))
    products = [node for node in graph.nodes if node.target in PRODUCTS and node not in last]
    weights = _store_in_half(program, set(products))
    for node in products:
        with graph.inserting_before(node):
            node.args = tuple(
                _cast(graph, one, torch.float16) if _is_single(one) and one not in weights else one for one in node.args
            )
        node.meta['val'] = node.meta['val'].to(torch.float16)
        users = list(node.users)
        with graph.inserting_after(node):
            back = _cast(graph, node, torch.float32)
        for user in users:
            user.replace_input_with(node, back)
    graph.lint()
    program.graph_module.recompile()
    return program


def weights_in_half(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model, with the weights of its products in half precision."""
    names = {
        f'{prefix}.{name}' if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, MODULES)
        for name, _ in module.named_parameters(recurse=False)
    }
    return {name: value.half() if name in names else value for name, value in model.state_dict().items()}


def _is_single(value: Any) -> bool:
    return isinstance(value, Node) and getattr(value.meta.get('val'), 'dtype', None) == torch.float32


def _call(graph: Graph, target: Any, *args: Any) -> Node:
    """A new node, which knows what it computes."""
    node = graph.call_function(target, args)
    node.meta['val'] = target(*(arg.meta['val'] if isinstance(arg, Node) else arg for arg in args))
    return node


def _cast(graph: Graph, node: Node, dtype: torch.dtype) -> Node:
    return _call(graph, ATEN.to.dtype, node, dtype)


def _spell_out(graph: Graph, node: Node) -> None:
    """Attention as two products and a softmax, so that the softmax alone can stay in single precision."""
    query, key, value, *rest = node.args
    mask = rest[0] if rest else node.kwargs.get('attn_mask')
    scale = node.kwargs.get('scale')
    assert isinstance(query, Node)
    with graph.inserting_before(node):
        scaled = _call(graph, ATEN.mul.Tensor, query, scale or 1 / math.sqrt(query.meta['val'].shape[-1]))
        shares = _call(graph, ATEN.matmul.default, scaled, _call(graph, ATEN.transpose.int, key, -2, -1))
        if mask is not None:
            shares = _call(graph, ATEN.add.Tensor, shares, mask)
        shares = _call(graph, ATEN.softmax.int, shares, -1)
        node.replace_all_uses_with(_call(graph, ATEN.matmul.default, shares, value))
    graph.erase_node(node)


def _before_decisions(graph: Graph) -> Iterator[Node]:
    """The last products on all ways to an output or a selection."""
    ends = [node for node in graph.nodes if node.op == 'output' or str(node.target).startswith(SELECTIONS)]
    seen: set[Node] = set()
    while ends:
        for node in ends.pop().all_input_nodes:
            if node in seen:
                continue
            seen.add(node)
            if node.target in PRODUCTS:
                yield node
            else:
                ends.append(node)


def _store_in_half(program: ExportedProgram, products: set[Node]) -> set[Node]:
    """Halve the parameters that products alone take, and return their nodes."""
    names = program.graph_signature.inputs_to_parameters
    found = set()
    for node in program.graph_module.graph.find_nodes(op='placeholder'):
        if node.name in names and _is_single(node) and node.users and products.issuperset(node.users):
            name = names[node.name]
            program.state_dict[name] = nn.Parameter(program.state_dict[name].half(), requires_grad=False)
            node.meta['val'] = node.meta['val'].half()
            found.add(node)
    return found
