"""What is installed against what a requirements file asks for, and a framework's CUDA build, without importing it."""

import importlib.metadata
import importlib.util
import platform
import re
import sys
from pathlib import Path

REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*(?P<wanted>[^;#]*)(?:;(?P<marker>[^#]*))?")
CLAUSE = re.compile(r"\s*(===|==|!=|~=|<=|>=|<|>)\s*([\w.*+!-]+)\s*$")
PYTHON = ".".join(map(str, sys.version_info[:3]))
MARKERS = {
    "python_version": PYTHON.rpartition(".")[0],
    "python_full_version": PYTHON,
    "sys_platform": sys.platform,
    "platform_system": platform.system(),
    "platform_machine": platform.machine(),
}


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without trailing zeros: "12.6" -> (12, 6), "2.0.0+cpu" -> (2,)."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version fulfils a specifier such as `>=2.0,<2.4`, `~=1.9.0`, `==2.13.*`, `==2.13.0+cu126` (PEP 440)."""
    return all(fulfils(version, *clause.groups()) for clause in map(CLAUSE.match, wanted.split(",")) if clause)


def fulfils(version: str, operator: str, target: str) -> bool:
    """One clause; a local label counts only where the clause has one, and a pre-release comes before its release."""
    if target.endswith(".*"):
        prefix = [int(part) for part in target[:-2].split(".")]
        same = ([*release(version), *[0] * len(prefix)])[: len(prefix)] == prefix
        return same if operator == "==" else not same
    public, _, local = version.partition("+")
    if operator in ("==", "===", "!="):
        wanted, _, label = target.partition("+")
        same = order(public) == order(wanted) and label in ("", local)
        return same if operator != "!=" else not same
    have, want = order(public), order(target)
    if operator == "~=":
        return have >= want and fulfils(public, "==", target.rpartition(".")[0] + ".*")
    return {"<": have < want, "<=": have <= want, ">": have > want, ">=": have >= want}[operator]


def order(version: str) -> tuple[tuple[int, ...], int]:
    """A key that sorts versions, close enough for requirements."""
    return release(version), 0 if re.search(r"\d(a|b|rc|\.dev)\d", version) else 1


def read_requirements(path: Path) -> dict[str, str]:
    """Package -> specifier of each line that applies here; options such as `--index-url` are skipped, `-r` followed."""
    wanted: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        include = re.match(r"\s*(?:-r|--requirement)[ =]\s*(\S+)", line)
        found = REQUIREMENT.match(line.strip())
        if include:
            wanted |= read_requirements(path.parent / include[1])
        elif found and applies(found["marker"] or ""):
            wanted[found["name"].lower()] = found["wanted"].strip()
    return wanted


def applies(marker: str) -> bool:
    """Whether an environment marker such as `python_version < "3.12"` holds; an unknown variable counts as yes."""
    return any(all(map(holds, part.split(" and "))) for part in marker.split(" or "))


def holds(clause: str) -> bool:
    """One comparison of a marker."""
    found = re.match(r"""[\s(]*(\w+)\s*([!=<>~]+)\s*["']([^"']*)["']""", clause)
    if not found or found[1] not in MARKERS:
        return True
    if found[1].startswith("python"):
        return fulfils(MARKERS[found[1]], found[2], found[3])
    return (MARKERS[found[1]] == found[3]) == (found[2] == "==")


def installed(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def cuda_build(package: str) -> str | None:
    """CUDA version that torch or paddle was built for, "" for a CPU build; None where the package is not there.

    Read from the text of its version file, since importing a framework takes seconds and may fail on a broken driver.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in (Path(folder, "version.py"), Path(folder, "version", "__init__.py")):
            if file.is_file():
                found = re.search(
                    r"^cuda\w*\s*(?::[^=\n]*)?=\s*'([\d.]+)'", file.read_text(encoding="utf-8"), re.MULTILINE
                )
                return found[1] if found else ""
    return None
