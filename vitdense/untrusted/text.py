"""Texts of files on a terminal, in a log and in a table: what they are, and nothing that they do."""

import re

COMMANDS = re.compile(
    '[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]'
)
"""Signs that a terminal obeys: controls but for the end of a line and the tabulator, and those that turn the direction
of writing. And bytes of file names that are no UTF-8, which Python has as halves of signs: no file takes them."""

FORMULA = re.compile(r'[=+\-@\t\r].*[(|!]', re.DOTALL)
"""Cells by which a spreadsheet calls something; a class may well be called + or -1."""


def visible(text: str) -> str:
    """``text`` with the signs that a terminal would obey written out, such as ``\\x1b`` for the escape."""
    return COMMANDS.sub(lambda sign: sign[0].encode('unicode_escape').decode(), text)


def cell(text: str) -> str:
    """``text`` for a table, with an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if FORMULA.match(text) else text
