"""Write or check template/tests/kit_checksums.txt, by which a project's tests notice that somebody changed its kit.

python -m tools.seal_kit            # write it, after a change of template/src/kit
python -m tools.seal_kit --check    # exit with 1 if it is out of date
"""

import sys
from hashlib import sha256
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1] / "template"
SEAL = TEMPLATE / "tests" / "kit_checksums.txt"


def checksums() -> str:
    """SHA-256 of each file of the kit, sorted; without names, since a project has only the files of its own answers."""
    files = sorted(path for path in (TEMPLATE / "src" / "kit").rglob("*") if path.is_file())
    kept = [path for path in files if "__pycache__" not in path.parts]
    return "\n".join(sorted({digest(path) for path in kept})) + "\n"


def digest(path: Path) -> str:
    """SHA-256 of a file, whatever line ends a checkout gave it."""
    return sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def main(argv: list[str]) -> int:
    """Write the file, or compare it."""
    if argv == ["--check"]:
        current = SEAL.exists() and SEAL.read_text("utf-8") == checksums()
        if not current:
            sys.stderr.write("template/src/kit has changed: run `python -m tools.seal_kit` and commit the result.\n")
        return 0 if current else 1
    SEAL.write_text(checksums(), "utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
