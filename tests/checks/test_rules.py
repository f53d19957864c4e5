"""Rules, their findings, and how both are told."""

import pytest

from vitdense import findings
from vitdense.checks import Case, Run, check, rule
from vitdense.checks import rules as module
from vitdense.findings import Finding, RunError, describe, stop


@pytest.fixture
def no_rules(monkeypatch):
    monkeypatch.setattr(module, 'CHECKS', [])
    monkeypatch.setattr(findings, 'RULES', {})


@pytest.fixture
def lamp(no_rules):
    @rule('lamp that is off', looks_at='the lamp', expected='light', remedy='switch it on')
    def off(run):
        yield Case('lamp.0', 'dark')
        yield Case('lamp.1', 'dim', expected='more light', remedy='a new bulb')


def test_a_finding_says_what_where_found_expected_and_the_remedy(lamp):
    first, second = check(Run(None), 'config')
    assert str(first) == 'lamp that is off: lamp.0: dark; expected light\n  switch it on'
    assert str(second) == 'lamp that is off: lamp.1: dim; expected more light\n  a new bulb'


def test_a_rule_is_asked_at_its_stage_only(lamp):
    assert check(Run(None), 'data') == []
    assert check(Run(None), 'model') == []


def test_findings_of_a_kind_are_counted_and_listed_with_each_remedy(lamp):
    assert describe(check(Run(None), 'config')) == [
        'lamp that is off: 2, expected light',
        '  lamp.0: dark',
        '  lamp.1: dim',
        '  switch it on',
        '  a new bulb',
    ]


def test_only_five_of_many_are_listed(lamp):
    lines = describe([Finding('lamp that is off', f'lamp.{i}', 'dark') for i in range(8)])
    assert lines[0] == 'lamp that is off: 8, expected light'
    assert lines[-2:] == ['  and 3 more', '  switch it on']


def test_a_run_stops_for_faults_and_not_for_remarks(no_rules):
    findings.declare('dust', 'the room', 'none', '', fatal=False)
    findings.declare('fire', 'the room', 'none', 'leave')
    dust, fire = Finding('dust', 'floor', 'a little', fatal=False), Finding('fire', 'roof', 'flames')
    assert stop([dust]) == [dust]
    with pytest.raises(RunError, match='fire: roof: flames; expected none\n  leave') as error:
        stop([dust, fire])
    assert 'dust' not in str(error.value)


def test_rules_have_names_of_their_own_and_known_stages(lamp):
    with pytest.raises(ValueError, match="'lamp that is off' is declared twice"):
        rule('lamp that is off', looks_at='', expected='')
    with pytest.raises(ValueError, match="needs 'luck', expected one of"):
        rule('new', looks_at='', expected='', needs='luck')
    with pytest.raises(KeyError, match="'old' is no rule"):
        Finding('old', 'here', 'something')
