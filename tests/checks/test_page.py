"""docs/checks.md is what the rules say."""

from support import ROOT

from vitdense.checks.page import page


def test_the_page_is_written_from_the_rules():
    assert (ROOT / 'docs/checks.md').read_text() == page(), 'python -m vitdense.checks.page docs/checks.md'
