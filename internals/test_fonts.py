"""Class names that the usual font cannot show: a font is found, or a note says which package has one."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager

from src.kit.report import draw_confusion, draw_images, find_font, fonts, readable, shorten

CAT, DOG = "\u732b", "\u72d7"
RARE = chr(
    min(
        set(font_manager.get_font(font_manager.findfont("STIXGeneral")).get_charmap())
        - set(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())
        - set(range(0x300, 0x2200))
    )
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that is searched for fonts, which is empty."""
    monkeypatch.setattr(font_manager, "X11FontDirectories", [tmp_path])
    monkeypatch.setattr(font_manager, "_get_fontconfig_fonts", list)
    monkeypatch.setattr(fonts, "families", ["DejaVu Sans"])
    monkeypatch.setattr(fonts, "lacking", set())
    for function in (fonts.has_glyph, fonts.family_files):
        function.cache_clear()
    yield tmp_path
    for function in (fonts.has_glyph, fonts.family_files):
        function.cache_clear()


def test_without_a_font_one_note_names_the_package_and_no_box_is_drawn(folder, tmp_path, caplog, recwarn):
    matrix = np.array([[3, 1], [0, 4]])
    draw_confusion(matrix, [CAT, DOG], tmp_path / "confusion.png")
    draw_images(np.zeros((2, 8, 8, 3), np.uint8), [CAT + " 1", DOG], tmp_path / "images.png")
    assert readable(CAT + " caf\u00e9") == "U+732B caf\u00e9"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "apt-get install fonts-wqy-microhei" in caplog.text
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert len(shorten(CAT * 40, 16)) == 16


def test_a_font_that_is_installed_later_is_found(folder, tmp_path, caplog):
    assert readable(RARE) == f"U+{ord(RARE):04X}"
    assert "apt-get install fonts-noto`" in caplog.text
    fonts.has_glyph.cache_clear()
    fonts.lacking.clear()
    shutil.copy(font_manager.findfont("STIXGeneral"), folder / "new.ttf")
    (folder / "broken.ttf").write_bytes(b"no font")
    assert readable(RARE) == RARE
    assert fonts.families == ["DejaVu Sans", "STIXGeneral"]
    assert Path(find_font("a")).stem == "DejaVuSans"
    assert Path(find_font(f"a{RARE}")).stem.startswith(("STIXGeneral", "new"))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_images_have_the_font(backend):
    dockerfile = Path(fonts.__file__).parents[3] / "deploy" / backend / "Dockerfile.jinja"
    assert "fonts-wqy-microhei" in dockerfile.read_text("utf-8")
