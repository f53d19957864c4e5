"""Values of ``--cfg-options``: what mmengine reads has the same meaning, and names keep what mmengine loses."""

import argparse
import math

import pytest
from mmengine.config import Config, DictAction

from vitdense.commands.arguments import add_config
from vitdense.config.cfg_options import merge_options
from vitdense.config.option_values import read_value

AS_MMENGINE = [
    '3', '-1', '+2', '1e-4', '-1.5e3', '1.', '.5', '160_000', 'inf', '0x10', '007',
    'true', 'False', 'TRUE', 'None', 'none', '', "''", 'a', "'a'", 'ä', 'a=b', 'a=b=c', 'http://host/a?b=1',
    '1,2,3', '1,2,', '1,,2', 'a,b=c', '-1,-2', 'None,true,x', "'a','b'", "Anna's,Bob's",
    '[1,2]', '[]', '[a]', '(1,2)', '(1)', '(1,)', '()', '( 1 , 2 )', '[1333, 800]', '((1333,800),(1333,640))',
    '[(1,2),[a,b],c]', '[1,[2,[3,(4,)]]]', '[None,True,-1]', '"[1,2]"', "'(a,b)'",
    'f(x)', 'a(b)c', 'a)b', '[x', 'x]', "it's",
]  # fmt: skip
"""With a meaning in mmengine that nothing is lost of."""

OURS = {
    # blanks
    'a b': 'a b',
    ' a b ': ' a b ',
    'data/my images/2024 05': 'data/my images/2024 05',
    'C:\\my data': 'C:\\my data',
    'traffic light,person': ['traffic light', 'person'],
    '(traffic light, stop sign)': ('traffic light', 'stop sign'),
    '[[a b], (c d,)]': [['a b'], ('c d',)],
    '[ ü ö , ß ]': ['ü ö', 'ß'],
    'tab\there': 'tab\there',
    '"a b"': 'a b',
    "' a '": ' a ',
    # quotes
    "'a,b'": 'a,b',
    '"a, b",c': ['a, b', 'c'],
    "('a (b)', 'c]', d)": ('a (b)', 'c]', 'd'),
    "['x(', 'y']": ['x(', 'y'],
    "('Anna's', 'x')": ("Anna's", 'x'),
    "'t Hooft": "'t Hooft",
    "dogs'": "dogs'",
    "'": "'",
    "Anna's dog,'s": ["Anna's dog", "'s"],
    "'1'": '1',
    "('1','2')": ('1', '2'),
    '["None", "true"]': ['None', 'true'],
    "'{a}'": '{a}',
    # brackets
    'data (1)': 'data (1)',
    '(old) data': '(old) data',
    '(a)/(b)': '(a)/(b)',
    '[a]/[b]': '[a]/[b]',
    'data (1),data (2)': ['data (1)', 'data (2)'],
    'f(a,b)': 'f(a,b)',
    '(1,2),(3,4)': [(1, 2), (3, 4)],
    '{a}/data': '{a}/data',
    # digits that are a name
    '2024_01': '2024_01',
    '1_2': '1_2',
}
"""Where mmengine loses a part, splits a name, or never returns."""

REFUSED = ['{}', '{"a":1}', 'dict(a=1)', '[dict(a=1)]', '(1,{"a": 2})', '1,(2', '(1,2]', '[[1]', '[a)]', 'a(,b']


@pytest.mark.parametrize('text', AS_MMENGINE)
def test_a_value_means_what_it_means_to_mmengine(text):
    value = read_value(text)
    expected = DictAction._parse_iterable(text)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize('text', OURS)
def test_a_name_keeps_all_that_it_has(text):
    value = read_value(text)
    assert (value, type(value)) == (OURS[text], type(OURS[text]))


def test_nan_is_a_number():
    assert math.isnan(read_value('nan'))


@pytest.mark.parametrize('text', REFUSED)
def test_dicts_and_lone_brackets_are_refused(text):
    with pytest.raises(ValueError, match=r'^(a dict|brackets do not match): '):
        read_value(text)


def parse(*settings: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_config(parser)
    return parser.parse_args(['c.py', '--cfg-options', *settings])


def test_settings_are_divided_at_their_first_sign_of_equality():
    assert parse('a=1', 'b.c=x=y', 'd=').cfg_options == {'a': 1, 'b.c': 'x=y', 'd': ''}


@pytest.mark.parametrize('text', OURS)
def test_values_reach_configs_of_both_styles_as_they_are(text, tmp_path):
    """In Python style, a config with ``read_base`` is read by another part of mmengine."""
    (tmp_path / 'base.py').write_text("load_from = 'x'\n")
    texts = {
        'text.py': "_base_ = 'base.py'\n",
        'python.py': 'from mmengine.config import read_base\n\nwith read_base():\n    from .base import *\n',
    }
    for name, content in texts.items():
        (tmp_path / name).write_text(content)
        cfg = Config.fromfile(tmp_path / name)
        merge_options(cfg, parse(f'load_from={text}').cfg_options)
        assert cfg.load_from == OURS[text]
        cfg.dump(tmp_path / 'dumped.py')
        assert Config.fromfile(tmp_path / 'dumped.py').load_from == OURS[text]


@pytest.mark.parametrize('setting', ['a', '=1', *(f'a={text}' for text in REFUSED)])
def test_what_is_no_value_is_answered_in_a_line(setting, capsys):
    with pytest.raises(SystemExit):
        parse(setting)
    [line] = [line for line in capsys.readouterr().err.splitlines() if 'error:' in line]
    assert 'argument --cfg-options: ' in line
    if setting.startswith('a='):
        assert line.endswith('the keys of a dict one by one (a.a=1 a.b=2), a text with such signs in quotes')
    else:
        assert line.endswith(f'expected KEY=VALUE, found {setting!r}')
