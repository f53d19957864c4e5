"""Names in scripts that DejaVu Sans lacks: drawn with a font of the system, else as the number of the class."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import FontManager, fontManager
from matplotlib.text import Text

from vitdense.evaluation.report import Curves, EvaluationReport
from vitdense.visualization import drawing, fonts
from vitdense.visualization.curves import draw_comparison, draw_curves
from vitdense.visualization.labels import Labels
from vitdense.visualization.plots import draw_confusion_matrix, draw_label_histogram, draw_per_class, draw_pr_curves

NUT, BOLT = '螺母', '螺栓'
NAMES = ('US$ & CA$', 'schraube/10 mm', NUT)
UNKNOWN = '\U00013000'
"""An Egyptian hieroglyph, which no font of a usual system has."""


def square(side: int):
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, side), (side, side), (side, 0)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()


@pytest.fixture
def no_fonts(monkeypatch):
    """A system without any font beyond matplotlib's."""
    bundled = str(Path(fonts.DEFAULT).parent)
    monkeypatch.setattr(fontManager, 'ttflist', [one for one in fontManager.ttflist if one.fname.startswith(bundled)])


@pytest.fixture
def chinese(no_fonts, tmp_path) -> str:
    """A system with a font that has the letters of NUT and ASCII, each a square."""
    letters = [*map(chr, range(33, 127)), *NUT]
    glyphs = {'.notdef': square(100), 'space': TTGlyphPen(None).glyph()} | {
        f'u{ord(x):x}': square(700) for x in letters
    }
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({32: 'space'} | {ord(x): f'u{ord(x):x}' for x in letters})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable(dict(familyName='Squares', styleName='Regular'))
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    path = str(tmp_path / 'squares.ttf')
    builder.save(path)
    FontManager.addfont(fontManager, path)
    return path


def report(names) -> EvaluationReport:
    recall = np.linspace(0, 1, 101)
    curves = Curves(recall, np.ones((len(names), 101)), np.ones((len(names), 101)))
    per_class = {name: dict(AP=0.5, AP50=0.6, instances=3) for name in names}
    counts = np.ones((len(names) + 1, len(names) + 1), int)
    return EvaluationReport('bbox', tuple(names), per_class, counts, curves)


def all_figures(names):
    for draw in (draw_confusion_matrix, draw_per_class, draw_pr_curves):
        yield draw(report(names))
    yield draw_label_histogram({'train': dict.fromkeys(names, (2, 3))})
    rows = [
        {'iter': i, 'epoch': i, 'seconds': i} | {f'val/{name}_precision': 0.1 * i for name in names} for i in (1, 2)
    ]
    yield draw_curves(rows, names[-1])
    yield draw_comparison({names[-1]: rows, names[0]: rows}, f'val/{names[-1]}_precision')


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_without_a_font_the_number_of_the_class_is_drawn(no_fonts, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        figures = list(all_figures(NAMES))
        for number, figure in enumerate(figures):
            figure.savefig(tmp_path / f'{number}.png')
    for figure in figures[:4]:
        assert any('class 2' in text for text in texts(figure))
        assert any('schraube/10 mm' in text for text in texts(figure))
        assert not any(NUT in text for text in texts(figure))
    for figure in figures[4:]:
        assert any('??' in text for text in texts(figure))
    assert drawing.name_of(NAMES, 2) == '2'
    assert drawing.name_of(NAMES, 1) == NAMES[1]


def test_a_font_of_the_system_is_used(chinese, tmp_path):
    assert fonts.font_for(NUT) == chinese
    assert fonts.font_for('nut') == fonts.DEFAULT
    assert fonts.font_for(BOLT) is None, 'of two letters the font has one'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for number, figure in enumerate(all_figures(NAMES)):
            figure.savefig(tmp_path / f'{number}.png')
            shown = [text for text in figure.findobj(Text) if NUT in text.get_text()]
            assert shown
            assert all(text.get_fontfamily() == ['DejaVu Sans', 'Squares'] for text in shown)
    assert drawing.name_of(NAMES, 2) == NUT
    assert drawing.font(12, NUT).path == chinese
    assert drawing.font(12, 'nut').path == fonts.DEFAULT


def test_names_on_pictures(chinese):
    """The squares of the font stand on the box's name, where DejaVu Sans would have drawn frames."""
    labels = Labels(boxes=torch.tensor([[20.0, 40.0, 180.0, 90.0]]), classes=torch.tensor([0]))
    image = torch.full((3, 100, 200), 128, dtype=torch.uint8)
    drawn = np.asarray(drawing.draw(image, labels, [NUT], [(0, 0, 0)], None))
    other = np.asarray(drawing.draw(image, labels, [NUT[0]], [(0, 0, 0)], None))
    white = [(picture == 255).all(-1).sum() for picture in (drawn, other)]
    assert white[0] == pytest.approx(2 * white[1], rel=0.1)


def test_letters_that_no_font_has():
    assert fonts.legible_names(['a', UNKNOWN, 'b']) == ['a', 'class 1', 'b']
    assert fonts.legible_letters(f'a{UNKNOWN}$') == 'a?$'
