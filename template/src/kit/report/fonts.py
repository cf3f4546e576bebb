"""Class names of any script in pictures: find an installed font for them, or say which package has one."""

import logging
import unicodedata
from contextlib import suppress
from functools import cache
from typing import Any

log = logging.getLogger("train")
families = ["DejaVu Sans"]  # of all figures; grows by the fonts that letters were found in
PREFERRED = ("noto", "sourcehan", "wqy", "yahei", "msyh", "pingfang", "simhei")  # parts of file names
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
BLOCK = 4096  # letters that a font usually has or lacks together
lacking: set[int] = set()  # blocks that no installed font has


def readable(text: str) -> str:
    """The text with "U+732B" in place of each letter that no installed font has; the first one is logged."""
    if text.isascii():
        return text
    return "".join(letter if has_glyph(letter) else f"U+{ord(letter):04X}" for letter in text)


@cache
def has_glyph(letter: str) -> bool:
    """Whether figures can show a letter; fonts are searched when it is needed first."""
    if letter.isspace() or any(shows(path, letter) for path in family_files(len(families))):
        return True
    block = ord(letter) // BLOCK
    if block in lacking:
        return False
    if found := search_fonts(letter):
        families.append(found)
        use_families()
        return True
    if not lacking:
        east_asian = unicodedata.name(letter, "").startswith(EAST_ASIAN)
        package = "fonts-wqy-microhei" if east_asian else "fonts-noto"
        log.warning(
            "Pictures show names as U+%04X, because no installed font has letters such as %s: install one, on Debian "
            "and Ubuntu with `apt-get install %s`.",
            ord(letter),
            letter,
            package,
        )
    lacking.add(block)
    return False


@cache
def family_files(count: int) -> list[str]:
    """The files of the first `count` families."""
    from matplotlib import font_manager

    return [font_manager.findfont(family) for family in families[:count]]


def search_fonts(letter: str) -> str:
    """The family of an installed font that has a letter, "" without one. New fonts are found, whatever is cached."""
    from matplotlib import font_manager

    paths = font_manager.findSystemFonts()
    names = {path: path.lower().replace(" ", "").replace("-", "") for path in paths}
    order = sorted(paths, key=lambda path: (not any(part in names[path] for part in PREFERRED), len(path), path))
    for path in order:
        if shows(path, letter):
            font_manager.fontManager.addfont(path)
            return str(font_manager.get_font(path).family_name)
    return ""


def shows(path: str, letter: str) -> bool:
    """Whether a font that matplotlib can draw has a letter."""
    from matplotlib import font_manager

    font: Any = None
    with suppress(Exception):  # a font of another kind, or a damaged one
        font = font_manager.get_font(path)
    return font is not None and bool(font.scalable) and font.get_char_index(ord(letter)) != 0


def find_font(text: str) -> str:
    """The file of a font for a `readable` text: DejaVu Sans, or the one with its other letters."""
    files = family_files(len(families))
    special = [letter for letter in text if not shows(files[0], letter) and not letter.isspace() and has_glyph(letter)]
    files = family_files(len(families))
    return next((path for path in files if special and shows(path, special[0])), files[0])


def use_families() -> None:
    """Have all texts that follow use the families found so far."""
    import matplotlib

    matplotlib.rcParams["font.family"] = families
