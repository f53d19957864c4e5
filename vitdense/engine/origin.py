"""Where does a checkpoint come from that does not fit?"""

import ast
from collections.abc import Mapping

from torch import Tensor

from vitdense.checkpoint.convert import recognise
from vitdense.checkpoint.layouts import FAMILIES


def origin(checkpoint: Mapping, state: Mapping[str, Tensor], name: str) -> str:
    """A sentence about the model that a checkpoint is from, by what it says or by its keys."""
    known = recognise(state)
    if known and not any(key.startswith('backbone.') for key in state) and not FAMILIES[known[0]].whole:
        return (
            f' It looks like the weights of a backbone ({known[0]}), which go to model.backbone.init_cfg='
            "dict(type='vitdense.Pretrained', checkpoint=...)."
        )
    text = (checkpoint.get('meta') or {}).get('cfg') if 'state_dict' in checkpoint else None
    kinds = _model_type(text) if isinstance(text, str) else []
    if kinds:
        return f' It looks like a checkpoint of another model: its config says {" with ".join(kinds)}, this is {name}.'
    return f' It looks like a checkpoint of {known[0] if known else "another model"}.'


def _model_type(text: str) -> list[str]:
    """``type`` of the model and of its backbone in the text of a config, which is parsed and not run."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], 'id', None) == 'model':
            model = _keywords(statement.value)
            nodes = [model, _keywords(model.get('backbone'))]
            kinds = [getattr(node.get('type'), 'value', None) for node in nodes]
            return [kind for kind in kinds if isinstance(kind, str)]
    return []


def _keywords(node: ast.expr | None) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in node.keywords} if isinstance(node, ast.Call) else {}
