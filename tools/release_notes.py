"""The notes of a release, from CHANGELOG.md: `python -m tools.release_notes v0.1.0`, as the release workflow does."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def release_notes(tag: str, changelog: str, versions: str) -> str:
    """Return the section of a release.

    Raises:
        ValueError: the tag is not the version of versions.yml, or has no section.
    """
    found = re.search(r"^template: (\S+)", versions, re.M)
    if not found or tag != f"v{found[1]}":
        raise ValueError(
            f"The tag {tag} is not v{found and found[1]}, the version in versions.yml: change one of them."
        )
    section = re.search(rf"^## {re.escape(found[1])}\n+(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if not section:
        raise ValueError(f"CHANGELOG.md has no heading '## {found[1]}': add it.")
    return section[1].strip() + "\n"


if __name__ == "__main__":
    texts = [(ROOT / name).read_text("utf-8") for name in ("CHANGELOG.md", "versions.yml")]
    try:
        print(release_notes(sys.argv[1], *texts), end="")
    except ValueError as error:
        sys.exit(f"error: {error}")
