"""Compares versions.yml with what the package indexes offer now: `nox -s freshness`.

The exit code is 1 where an index that can be reached lacks a build or cannot resolve a pin, or where a pin is a
known-bad release. What cannot be reached from here is reported as such and never counted as passed.
"""

import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
HUB = "https://hub.docker.com/v2/repositories"
PACKAGE = {"lightning": "torch", "paddle": "paddlepaddle-gpu"}  # the one that carries the build
Versions = dict[str, Any]


class Row(NamedTuple):
    """`state`: resolved, current, there, stale, unreachable or FAILED."""

    what: str
    state: str
    detail: str


def rows(versions: Versions) -> list[Row]:
    """The whole table; the slow ones, one call of uv or one page each, run side by side."""
    tasks: list[Callable[[], list[Row]]] = [partial(stale_pins, versions), partial(unlisted_builds, versions)]
    together = (["lightning"], ["paddle"], ["lightning", "paddle"])
    tasks += [partial(default_index, versions, backends) for backends in together]
    tasks += [
        partial(own_index, versions, backend, b) for backend, builds in versions["builds"].items() for b in builds
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda task: task(), tasks))
    return [*known_bad(versions), *(row for part in found for row in part)]


def pins(versions: Versions) -> list[str]:
    """Every requirement of versions.yml, once."""

    def lines(group: Any) -> Iterator[str]:
        if isinstance(group, str):
            yield group
        else:
            for part in group.values() if isinstance(group, dict) else group:
                yield from lines(part)

    return list(dict.fromkeys(lines(versions["packages"])))


def known_bad(versions: Versions) -> list[Row]:
    """Pins that versions.yml itself forbids."""
    found = []
    for line in pins(versions):
        pin = Requirement(line)
        why = [forbidden(versions, pin.name, one.version) for one in pin.specifier if one.operator == "=="]
        found += [Row(line, "FAILED", f"known-bad release: {reason}") for reason in why if reason]
    return found


def forbidden(versions: Versions, name: str, version: str) -> str:
    """Why this release must not be used, or nothing."""
    rules = versions["bad"].get(canonicalize_name(name), {})
    return next((why for wrong, why in rules.items() if SpecifierSet(wrong).contains(version)), "")


def stale_pins(versions: Versions) -> list[Row]:
    """A pin serves every Python, so it is stale where the oldest Python could have a newer one as well."""
    wanted = {Requirement(line).name: Requirement(line) for line in pins(versions)}
    wanted.pop(PACKAGE["paddle"], None)  # its index is its own, and its version paddlepaddle's
    newest = resolve(list(wanted), versions["python"]["minimum"], ["--no-deps"])
    if isinstance(newest, Row):
        return [newest._replace(what="pins")]
    stale = []
    for name, pin in wanted.items():
        last = newest[canonicalize_name(name)]
        if not pin.specifier.contains(last) and not forbidden(versions, name, last):
            stale.append(Row(f"{name}{pin.specifier}", "stale", f"{last} is out"))
    return [*stale, Row("pins", "current", f"{len(wanted) - len(stale)} of {len(wanted)}")]


def default_index(versions: Versions, backends: Sequence[str]) -> list[Row]:
    """Whether the CPU requirements with every tracker resolve for each Python, as pip or uv is configured here."""
    lines = [line for backend in backends for line in versions["packages"][backend]["cpu"]]
    what = " + ".join(backends) + ", default index"
    return [for_each_python(versions, backends, what, lines, [])]


def own_index(versions: Versions, backend: str, build: str) -> list[Row]:
    """One build: its wheels for each Python on its index and on its mirror, whether all resolves, and its image."""
    entry, found = versions["builds"][backend][build], []
    lines = versions["packages"][backend]["cpu" if build == "cpu" else "gpu"]
    for key in ("index", "find_links"):
        if address := entry.get(key):
            what = f"{backend}, {build}" + (", mirror" if key == "find_links" else "")
            page = fetch(f"{address.rstrip('/')}/{PACKAGE[backend]}/" if key == "index" else address)
            supported = pythons(versions, [backend])
            if isinstance(page, Row):
                found.append(page._replace(what=what))
            elif missing := [python for python in supported if python not in wheels(page, lines[0])]:
                found.append(Row(what, "FAILED", f"{address} has no {lines[0]} for Python {', '.join(missing)}"))
            elif key == "index":
                options = ["--extra-index-url", address, "--index-strategy", "unsafe-best-match"]
                found.append(for_each_python(versions, [backend], what, lines, options))
            else:
                found.append(Row(what, "there", f"Python {supported[0]} to {supported[-1]}"))
    if image := entry.get("image"):
        name, tag = image.split(":")
        answer = fetch(f"{HUB}/{name}/tags/{tag}")
        found.append(answer._replace(what=image) if isinstance(answer, Row) else Row(image, "there", "Docker Hub"))
    return found


def unlisted_builds(versions: Versions) -> list[Row]:
    """CUDA builds of the pinned torch that versions.yml does not have."""
    builds, what = versions["builds"]["lightning"], "list of torch's builds"
    page = fetch(builds["cpu"]["index"].rsplit("/", 1)[0] + "/torch/")
    if isinstance(page, Row):
        return [page._replace(what=what)]
    version = re.escape(versions["packages"]["lightning"]["gpu"][0].partition("==")[2])
    tags = re.findall(rf"\btorch-{version}(?:%2B|\+)cu(\d+)(\d)-", page)
    more = sorted({".".join(tag) for tag in tags} - set(builds))
    return [
        Row(what, "stale", f"not in versions.yml: {', '.join(more)}") if more else Row(what, "current", "all listed")
    ]


def wheels(page: str, pin: str) -> set[str]:
    """The Python versions that an index page has wheels of `name==version` for."""
    name, _, version = pin.replace("-", "_").partition("==")
    tags = re.findall(rf"\b{name}-{re.escape(version)}(?:(?:%2B|\+)\w+)?-cp(\d)(\d+)-", page)
    return {".".join(tag) for tag in tags}


def pythons(versions: Versions, backends: Sequence[str]) -> list[str]:
    """Python versions that all of these frameworks support."""
    first = int(versions["python"]["minimum"].split(".")[1])
    last = min(int(versions["python"]["newest"][backend].split(".")[1]) for backend in backends)
    return [f"3.{minor}" for minor in range(first, last + 1)]


def for_each_python(
    versions: Versions, backends: Sequence[str], what: str, lines: Sequence[str], options: Sequence[str]
) -> Row:
    """One row for all Pythons: the first that does not resolve decides."""
    packages, supported = versions["packages"], pythons(versions, backends)
    groups = [*packages["tracker"].values(), *packages["extras"].values()]
    everything = [*lines, *packages["common"], *(line for group in groups for line in group)]
    for python in supported:
        answer = resolve(everything, python, options)
        if isinstance(answer, Row):
            return Row(what, answer.state, f"Python {python}: {answer.detail}")
    return Row(what, "resolved", f"Python {supported[0]} to {supported[-1]}")


def resolve(lines: Sequence[str], python: str, options: Sequence[str]) -> dict[str, str] | Row:
    """Versions by name, from metadata alone: nothing is installed, and wheels only count."""
    command = ["uv", "pip", "compile", "-", "--no-header", "--no-annotate", "--only-binary", ":all:"]
    command += ["--python-version", python, "--no-python-downloads", *options]
    with tempfile.TemporaryDirectory() as folder:  # away from any pyproject.toml
        done = subprocess.run(
            command, input="\n".join(lines), cwd=folder, capture_output=True, encoding="utf-8", check=False
        )
    if done.returncode == 0:
        pinned = [line.split(";")[0].strip().split("==") for line in done.stdout.splitlines() if "==" in line]
        return {name.partition("[")[0]: version for name, version in pinned}
    said = " ".join(done.stderr.split())
    return Row("", "FAILED" if "No solution found" in said else "unreachable", said[:300])


@cache
def fetch(url: str) -> str | Row:
    """A page; a row where it is gone or cannot be reached."""
    try:
        with urllib.request.urlopen(url, timeout=20) as page:
            return str(page.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        return Row("", "FAILED" if error.code in (404, 410) else "unreachable", f"{url}: {error.code} {error.reason}")
    except OSError as error:
        return Row("", "unreachable", f"{urlsplit(url).netloc}: {getattr(error, 'reason', error)}")


def table(found: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| what | state | detail |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in found)])


def main(file: Path = ROOT / "versions.yml") -> int:
    """Print the table."""
    found = rows(yaml.safe_load(file.read_text("utf-8")))
    print(table(found))
    return int(any(row.state == "FAILED" for row in found))


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
