"""Is a program of ``torch.export`` nothing but a program?

``torch.export.load`` trusts its file: it unpickles, loads libraries, looks up functions by any name below ``torch``,
and evaluates formulas of sizes as Python. What ``vitdense export`` writes has arrays, operators and arithmetic, so that
everything else can be refused before it is read.
"""

import ast
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitdense.untrusted.files import check_regular, check_zip

from .exported import KEY

FILES = re.compile(
    r'[^/]+/(\.?data/(weights/(weight_\d+|[^/]+\.json)|constants/(tensor_\d+|[^/]+\.json)|version|serialization_id)'
    r'|models/[^/]+\.json|extra/\w+|archive_format|archive_version|byteorder|version|\.format_version'
    r'|\.storage_alignment)'
)
"""That an archive may have; one of example inputs, a pickle, has to be empty."""
INPUTS = re.compile(r'[^/]+/data/sample_inputs/[^/]+')

OPERATORS = re.compile(
    r'torch\.ops\.(vitdense|aten(?!\.from_file))\.\w+\.\w+|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt)'
    r'|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)'
)
FUNCTIONS = {
    'Symbol', 'Integer', 'Float', 'Rational', 'Add', 'Mul', 'Pow', 'Abs', 'Mod', 'Max', 'Min', 'floor', 'ceiling',
    'FloorDiv', 'PythonMod', 'CleanDiv', 'ModularIndexing', 'Where', 'CeilToInt', 'FloorToInt', 'TruncToInt',
    'TruncToFloat', 'RoundToInt', 'IntTrueDiv', 'FloatTrueDiv', 'ToFloat', 'PowByNatural', 'FloatPow', 'And', 'Or',
    'Not', 'Equality', 'Unequality', 'GreaterThan', 'StrictGreaterThan', 'LessThan', 'StrictLessThan', 'Piecewise',
    'Identity', 'OpaqueUnaryFn_sqrt',
}  # fmt: skip
"""Of formulas of sizes."""
FORMULA = (ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub, ast.Tuple)


def check(path: Path) -> None:
    """Refuse what is no plain program of ``vitdense export``.

    Raises:
        ValueError: it is not; the message names what is in it.
    """
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, path.stat().st_size)
            names = archive.namelist()
            told = any(name.endswith(f'/extra/{KEY}') for name in names)
            texts = {name: archive.read(name) for name in names if name.endswith('.json')}
            empty = {entry.filename for entry in archive.infolist() if not entry.file_size}
            damaged = archive.testzip()  # PyTorch does not look at the checksums
        inputs = {name for name in empty if INPUTS.fullmatch(name)}
        strange = [name for name in names if name not in inputs and not FILES.fullmatch(name)]
        for name, text in texts.items():
            strange += [f'{found} in {name}' for found in _strange(json.loads(text))]
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f'{path} is no program of torch.export, or is damaged: {error}') from None
    if damaged:
        raise ValueError(f'{path} is damaged: {damaged} in it has another checksum')
    if strange:
        raise ValueError(f'{path} is refused: it has {strange[0][:200]}, by which it could run code of its own')
    if not told:
        raise ValueError(
            f'{path} is a program of torch.export, but none of `vitdense export`: it does not say what it is'
        )


def _strange(node: Any, key: str = '') -> Iterator[str]:
    """What is in a JSON file of the archive and is no operator, formula or array."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _strange(child, name)
    elif isinstance(node, list):
        for child in node:
            yield from _strange(child, key)
    elif key == 'target' and not OPERATORS.fullmatch(node):
        yield f'the operator {node!r}'
    elif key == 'expr_str' and not _is_formula(node):
        yield f'the formula {node!r}'
    elif key == 'use_pickle' and node:
        yield 'a pickle'


def _is_formula(text: str) -> bool:
    """Whether it does nothing but to call ``FUNCTIONS``, with numbers and the names of symbols."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode='eval')))
    except (SyntaxError, RecursionError):
        return False
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return all(isinstance(node, FORMULA) for node in nodes) and names <= FUNCTIONS and all(map(str.isalnum, texts))
