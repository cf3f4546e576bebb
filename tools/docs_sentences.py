"""Every sentence with which a command ends, read from the source with `ast`."""

import ast
import html
import re
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs/site"


def messages(number: int) -> str:
    """Every sentence with which a command ends, by area, each with what docs/site/messages.yml adds to it.

    Args:
        number: of the language, 0 or 1.
    """
    notes = yaml.safe_load((SITE / "messages.yml").read_text("utf-8"))
    areas = yaml.safe_load((SITE / "words.yml").read_text("utf-8"))["areas"]
    listed: dict[str, list[str]] = {}
    used = set()
    for path, text in sentences():
        area = next(titles[number] for part, titles in areas.items() if part in path)
        note = next((begin for begin in notes if begin in text), None)
        used.add(note)
        line = f"- {escape(text)}" + (f"<br>**→** {notes[note][number]}" if note else "")
        if line not in listed.setdefault(area, []):
            listed[area].append(line)
    if unused := set(notes) - used:
        raise ValueError(f"docs/site/messages.yml explains sentences that nothing prints: {sorted(unused)}")
    return "\n".join(f"\n### {area}\n\n" + "\n".join(lines) for area, lines in sorted(listed.items())) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"&#{ord(c)};" if c in "\\`*_{}[]<>#|&" else c for c in html.unescape(text))


@cache
def sentences() -> list[tuple[str, str]]:
    """(file, sentence) of each `UserError(...)` and `exit_with(...)`, sorted; `…` stands for what varies."""
    sources = {path: path.read_text("utf-8") for path in (ROOT / "template").glob("s*/**/*.py")}
    named = set(re.findall(r"class (\w+)\(UserError\)", "".join(sources.values()))) | {"UserError", "exit_with"}
    used = re.compile(rf"\b({'|'.join(named)})\(")
    calls = [
        (path.relative_to(ROOT).as_posix(), value)
        for path, source in sources.items()
        if used.search(source)
        for scope in ast.walk(ast.parse(source))
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(scope)
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).rpartition(".")[2] in named
        for value in values(node.args[0], scope)
    ]
    makers = {value.func.id for _, value in calls if isinstance(value, ast.Call) and isinstance(value.func, ast.Name)}
    defined = re.compile(rf"^def ({'|'.join(makers)})\(", re.M)
    functions = {
        node.name: node
        for source in sources.values()
        if defined.search(source)
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    }
    found = {(path, text) for path, value in calls for text in texts(value, functions)}
    return sorted(pair for pair in found if len(re.sub(r"[^A-Za-z]", "", pair[1])) > 12)


def values(node: ast.expr, scope: ast.AST) -> list[ast.expr]:
    """The expressions that an argument can be: of a variable, all that the function assigns to it."""
    if not isinstance(node, ast.Name):
        return [node]
    found = []
    for each in ast.walk(scope):
        target = each.targets[0] if isinstance(each, ast.Assign) else getattr(each, "target", None)
        if isinstance(each, ast.Assign | ast.NamedExpr) and isinstance(target, ast.Name) and target.id == node.id:
            found.append(each.value)
    return found


def texts(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> list[str]:
    """The sentences that an expression can be: of a function that makes sentences, all that it returns."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        returned = [n.value for n in ast.walk(functions[node.func.id]) if isinstance(n, ast.Return) and n.value]
        return [plain(value) for value in returned]
    return [plain(node)]


def plain(node: ast.expr) -> str:
    """The constant parts of a text, `…` for the others."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return re.sub("…+", "…", "".join(plain(part) for part in node.values))
    if isinstance(node, ast.IfExp):
        return next((text for text in map(plain, (node.body, node.orelse)) if text not in ("", "…")), "…")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return re.sub("…+", "…", plain(node.left) + plain(node.right))
    return "…"
