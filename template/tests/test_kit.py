"""`src/kit` is the template's: an update replaces it whole, so changes made there would be lost."""

from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KNOWN = set((ROOT / "tests" / "kit_checksums.txt").read_text("utf-8").split())
ADVICE = "an update would overwrite it, so move your change to a file of your own (docs/guide.md)"


def digest(path: Path) -> str:
    return sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def test_the_kit_is_as_the_template_made_it():
    files = [path for path in (ROOT / "src" / "kit").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 40
    changed = sorted(path.relative_to(ROOT).as_posix() for path in files if digest(path) not in KNOWN)
    assert not changed, f"changed or added in the kit: {', '.join(changed)}; {ADVICE}"
