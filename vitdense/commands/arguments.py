"""Options that several commands have."""

import argparse
import ast
import re
from collections.abc import Sequence

from mmengine.config import DictAction


class Settings(DictAction):
    """``KEY=VALUE`` with the values of mmengine, and dicts as Python or JSON writes them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Add the settings to those of ``namespace``."""
        for setting in values:
            key, sign, text = setting.partition('=')
            if not sign:
                raise argparse.ArgumentError(self, f'expected KEY=VALUE, found {setting!r}')
            try:
                if not re.match(r'[\[(\s]*(\{|dict\()', text):
                    super().__call__(parser, namespace, [setting], option_string)
                    continue
                value = ast.literal_eval(_Displays().visit(ast.parse(text.strip(), mode='eval')))
            except (AssertionError, SyntaxError, ValueError) as error:
                raise argparse.ArgumentError(self, f'{key}: no value of Python is {text!r}') from error
            setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), key: value})


class _Displays(ast.NodeTransformer):
    """Writes ``dict(a=true)`` as ``{'a': True}``."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        known = {'true': True, 'false': False, 'null': None}
        return ast.Constant(known[node.id]) if node.id in known else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func) != 'dict' or node.args or any(keyword.arg is None for keyword in node.keywords):
            return node
        keys: list[ast.expr | None] = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def add_config(parser: argparse.ArgumentParser) -> None:
    """The config and what is changed in it, and how its data are checked."""
    parser.add_argument('config', help='config file, or one of an installed package: mmdet::retinanet/...')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE', help='override settings of the config'
    )
    data = parser.add_argument_group('data')
    data.add_argument(
        '--check',
        choices=['full', 'sample', 'off'],
        default='sample',
        help='open all images, some hundreds (the default), or none; annotation files are always read whole',
    )
    data.add_argument(
        '--lenient',
        action='store_true',
        help='leave out what is wrong with the data, and count it, instead of stopping',
    )


def add_work_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """The folder of a run, by ``default`` one of this name."""
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help=f'folder of logs and results, default {default}; DIR2, DIR3, ... if it is taken',
    )
    parser.add_argument('--overwrite', action='store_true', help='remove the earlier run in the work dir')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """How several processes are started."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Another backbone, and whether its weights are loaded."""
    parser.add_argument('--backbone', metavar='NAME', help='swap the backbone of the config, e.g. pvt_v2_b2, swin_tiny')
    parser.add_argument(
        '--no-pretrained', dest='pretrained', action='store_false', help='train the backbone from random weights'
    )
