"""Edits at random, and what an update did to them.

An edit is one line inserted, deleted or changed, or one file added, removed or renamed. What was lost is
told from the files alone: as they were made, as they were edited, as the new release makes them, and as the update
left them.
"""

from collections import Counter
from pathlib import Path

from tests.history import NEWEST, SYNTHETIC, conflicts, git, rendered

Edit = tuple[
    str, int, int, bool
]  # kind, number of the file, number of the line, whether the new release changes the file
KINDS = ("insert", "insert", "change", "change", "delete", "add", "remove", "rename")
ANSWERS = ".copier-answers.yml"
# copier recreates the files of _skip_if_exists
RECREATED = ("README.md", "requirements-own.txt", "PROJECT_BUILD_LOG.md")
NAMES = ("src/models/ours_{}.py", "notes {}.md", "docs/Größe_{}.md", "data sets/图_{}.yaml", "docs/picture_{}.png")


def files(project: Path) -> dict[str, bytes]:
    """The content of every file that git tracks or would, by name."""
    names = git(project, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return {name: (project / name).read_bytes() for name in sorted(set(names)) if name and (project / name).is_file()}


def apply(project: Path, example: str, edits: list[Edit], release: str = SYNTHETIC) -> None:
    """Make these edits; numbers wrap around, so each one does something."""
    old, new = files(rendered(release, example)), files(rendered(NEWEST, example))
    there = [name for name in files(project) if name != ANSWERS and not name.endswith(".png")]
    for number, (kind, file, line, changed) in enumerate(edits):
        both = [name for name in there if old.get(name) != new.get(name)] if changed else there
        name = (both or there)[file % len(both or there)]
        if kind == "add":
            name = NAMES[file % len(NAMES)].format(number)
            (project / name).parent.mkdir(exist_ok=True, parents=True)
            (project / name).write_bytes(bytes(range(256)) if name.endswith("png") else f"ours {number}\n".encode())
            there += [] if name.endswith("png") else [name]
        elif kind == "remove":
            (project / name).unlink()
            there.remove(name)
        elif kind == "rename":
            (project / name).rename(project / f"{name}.{number}")
            there[there.index(name)] = f"{name}.{number}"
        else:
            edit_line(project / name, kind, line, number)


def edit_line(path: Path, kind: str, line: int, number: int) -> None:
    """Insert, delete or change a line; an empty file gets one."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    at = line % len(lines) if lines else 0
    if kind == "insert" or not lines:
        lines.insert(at, f"# our line {number}\n")
    elif kind == "change":
        lines[at] = lines[at].rstrip("\n") + f"  # our change {number}\n"
    else:
        del lines[at]
    path.write_text("".join(lines), "utf-8", newline="\n")


def losses(project: Path, example: str, edited: dict[str, bytes], release: str = SYNTHETIC) -> list[str]:
    """What went wrong in an updated project, one sentence each; `edited` is what `files` gave before the update."""
    old, new, now = files(rendered(release, example)), files(rendered(NEWEST, example)), files(project)
    found = [f"{name} is a leftover" for name in now if name.endswith((".rej", ".orig"))]
    found += [f"{name} was removed and came back" for name in set(old) - set(edited) - {*RECREATED} if name in now]
    for name in set(edited) - {ANSWERS}:
        if name not in now or b"\0" in edited[name]:
            found += [f"{name} is not as it was"] if now.get(name) != edited[name] else []
            continue
        before, made, brought = (count(text.get(name, b"")) for text in (edited, old, new))
        text = now[name].decode()
        everywhere, settled = count(now[name]), count(outside_conflicts(text).encode())
        found += [f"{name} lost: {line}" for line, times in (before - made).items() if everywhere[line] < times]
        found += [
            f"{name} has again: {line}"
            for line in made - before
            if settled[line] and not before[line] and brought[line] <= made[line]
        ]
        if name in new and name in old and name not in RECREATED:
            found += [f"{name} did not get: {line}" for line in brought - made if not everywhere[line]]
        if (settled != everywhere) != (name in conflicts(project)):
            found.append(f"{name}: the markers and git disagree about a conflict")
    return sorted(found)


def count(text: bytes) -> Counter[str]:
    """How often each line is there."""
    return Counter(text.decode().splitlines())


def outside_conflicts(text: str) -> str:
    """The text without what stands between conflict markers."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        inside = inside or line.startswith("<<<<<<< ")
        kept += [] if inside else [line]
        inside = inside and not line.startswith(">>>>>>> ")
    return "".join(kept)
