"""Assemble the documentation site in docs/site/build: the pages of docs/site/en and zh, and those that are generated.

    python -m tools.docs_site && mkdocs build --strict -f docs/site/mkdocs.yml    # or: nox -s docs

    reference.md          every key, from the kit's keys.yaml and the signatures of the components
    requirements.md       docs/site/requirements.yml
    troubleshooting.md    the hand-written page, then every sentence with which a command ends, read from the source
    guide/*.md            what a project with everything carries (template/docs)
    contributing.md ...   the files of docs/ and CHANGELOG.md

`[text](repo:PATH)` links to a file of this repository; one that does not exist is an error.
"""

import ast
import html
import posixpath
import re
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs/site"
REPOSITORY = "https://github.com/org/ml-template"
LANGUAGES = ("en", "zh")
INCLUDED = {
    "contributing.md": "docs/contributing.md",
    "benchmarks.md": "docs/benchmarks.md",
    "design.md": "docs/design.md",
    "releasing.md": "docs/releasing.md",
    "changelog.md": "CHANGELOG.md",
}
GROUPS = ("model", "data", "loss", "metric", "optimizer", "scheduler", "tracker", "callback")
AREAS = {  # part of a path -> heading of its sentences, in both languages; the first that fits
    "scripts/": ("Commands", "命令"),
    "kit/errors": ("Any command", "所有命令"),
    "kit/config": ("Configuration", "配置"),
    "kit/download": ("Downloads", "下载"),
    "kit/catalog": ("Choice of data sets", "数据集选择"),
    "tabular": ("Tables", "表格"),
    "scenes": ("Boxes, outlines and class maps", "标注框、轮廓与类别图"),
    "kit/shards": ("Shards", "分片数据"),
    "datasets/": ("Data sets", "数据集"),
    "kit/checks": ("Checks of data", "数据检查"),
    "kit/loading": ("Loading images", "图像读取"),
    "kit/splitting": ("Splits", "数据划分"),
    "kit/mini": ("Mini data sets", "小型数据集"),
    "models/": ("Networks", "网络"),
    "weights": ("Weights", "权重"),
    "kit/memory": ("Memory", "显存"),
    "kit/search": ("Search", "超参数搜索"),
    "kit/serving": ("Service", "推理服务"),
    "src/api": ("Service", "推理服务"),
    "predictions": ("Prediction", "预测"),
    "inference": ("Trained networks", "训练好的网络"),
    "edge": ("Edge devices", "边缘设备"),
    "benchmarks": ("Benchmarks and validation", "基准测试与流程验证"),
    "tracker": ("Trackers", "实验跟踪"),
    "": ("Training, evaluation and export", "训练、评估与导出"),
}
WORDS = {
    "en": {
        "reference": "Configuration keys",
        "generated": "Generated from `keys.yaml` and the signatures of the components when the site is built. "
        "`python scripts/train.py --help` shows the same for what is chosen. Help texts are those of the source.",
        "kit": "Keys of the kit",
        "options": "Options",
        "names": "| group | names |",
        "columns": "| key | value | default | meaning |",
        "frameworks": "Frameworks",
        "required": "required",
        "needs": "| requirement | command or key | proof |",
        "without": "none yet",
        "english": "",
    },
    "zh": {
        "reference": "配置键",
        "generated": "本页在构建站点时由 `keys.yaml` 与各组件的函数签名生成。"
        "`python scripts/train.py --help` 会按当前选择列出同样的内容。说明文字取自源码，保持英文。",
        "kit": "框架内核的键",
        "options": "可选项",
        "names": "| 组 | 名称 |",
        "columns": "| 键 | 取值 | 默认值 | 含义 |",
        "frameworks": "框架",
        "required": "必填",
        "needs": "| 需求 | 命令或配置键 | 验证 |",
        "without": "尚无",
        "english": '!!! note ""\n\n    本页与源文件同步，仅有英文版。\n\n',
    },
}


@cache
def assemble(language: str) -> dict[str, str]:
    """Name -> Markdown of every page in one language.

    Raises:
        ValueError: a link leads to a file that does not exist, or an explanation to no sentence.
    """
    english = WORDS[language]["english"]
    folder = SITE / language
    pages = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.md"))}
    pages["troubleshooting.md"] += "\n" + messages(language)
    pages |= {"reference.md": reference(language), "requirements.md": requirements(language)}
    pages |= {name: english + relink((ROOT / path).read_text("utf-8"), path) for name, path in INCLUDED.items()}
    pages |= {f"guide/{name}": english + relink(text, f"template/docs/{name}") for name, text in guide().items()}
    return {name: to_repository(unwrap(text), name) for name, text in pages.items()}


def unwrap(text: str) -> str:
    """Join lines between Chinese characters, where a line break would be shown as a space."""
    text = re.sub(r"(?<=[\u4e00-\u9fff])\n *(?=[\u4e00-\u9fff“（])", "", text)
    return re.sub(r"(?<=[，。；：、”）])\n *(?=[\u4e00-\u9fff“（A-Za-z0-9]|`[^`])", "", text)


def to_repository(text: str, name: str) -> str:
    """Resolve the `repo:` links of a page."""

    def link(found: re.Match[str]) -> str:
        if not (ROOT / found[1]).exists():
            raise ValueError(f"{name} links to {found[1]}, which does not exist.")
        return f"]({REPOSITORY}/blob/main/{found[1]}{found[2] or ''})"

    return re.sub(r"\]\(repo:([^)#]+)(#[^)]*)?\)", link, text)


def relink(text: str, path: str) -> str:
    """Links of an included file: to its page of the site if there is one, else to the repository."""
    pages = {source: name for name, source in INCLUDED.items()}

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if ":" in target:
            return found[0]
        full = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if full in pages:
            return f"]({pages[full]}{anchor})"
        inside = path.startswith("template/docs/") and full.startswith("template/docs/") and full.endswith(".md")
        return found[0] if inside else f"](repo:{full}{anchor})"

    return re.sub(r"\]\(([^)#\s]+)(#[^)]*)?\)", link, text)


def guide() -> dict[str, str]:
    """Name -> text of the pages that a project with both frameworks, all tasks and all extras carries."""
    sys.path[:0] = [str(ROOT / "internals"), str(ROOT / "template")]
    from guide import documents  # type: ignore[import-not-found]

    return {name: text for name, text in documents("everything").items() if name != "README.md"}


def cell(value: object) -> str:
    """A text in a cell of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def reference(language: str) -> str:
    """Every key of the kit and of the components, with its type, range, default and meaning."""
    sys.path.insert(0, str(ROOT / "template"))
    from src.kit.config import keys  # type: ignore[import-not-found]
    from src.kit.config.compose import CONFIGS, load_config, option_names  # type: ignore[import-not-found]

    words = WORDS[language]
    defaults = keys.leaves(load_config(["task=tabular", "data=table_file"])) | keys.leaves(load_config([]))
    defaults = {
        key: value for key, value in defaults.items() if not key.endswith((".name", ".file", ".title", ".tasks"))
    }
    lines = [
        f"# {words['reference']}",
        "",
        words["generated"],
        "",
        f"## {words['options']}",
        "",
        words["names"],
        "|---|---|",
    ]
    groups = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())
    lines += [f"| `{group}` | {', '.join(f'`{name}`' for name in option_names(group))} |" for group in groups]
    lines += ["", f"## {words['kit']}", "", words["columns"], "|---|---|---|---|"]
    for key, rule in sorted(keys.reference().items()):
        default = f"`{cell(shown(defaults[key]))}`" if key in defaults else ""
        lines.append(f"| `{key}` | {cell(keys.describe(rule))} | {default} | {cell(rule['help'])} |")
    for group in GROUPS:
        lines += components(group, words)
    return "\n".join(lines) + "\n"


def components(group: str, words: dict[str, str]) -> list[str]:
    """A heading for the group and one table for each of its files that has keys of its own."""
    from src.kit.config import keys
    from src.kit.config.components import FRAMEWORKS, component_files, signature

    found: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for framework in FRAMEWORKS:
        for name, path in component_files(group, framework).items():
            frameworks, arguments = found.setdefault(name, ([], {}))
            frameworks.append(framework)
            arguments |= signature(path)
    given = ("classes", "channels", "image_size", "total_steps", "steps_per_epoch", *keys.GENERAL_KEYS)
    tables = []
    for name, (frameworks, arguments) in sorted(found.items()):
        own = [argument for argument in arguments.values() if argument.name not in given and argument.help]
        if own:
            tables += ["", f"### {group}: {name}", "", f"{words['frameworks']}: {', '.join(frameworks)}", ""]
            tables += [words["columns"], "|---|---|---|---|"]
        for argument in own:
            default = words["required"] if argument.default is ... else f"`{cell(shown(argument.default))}`"
            rule = cell(keys.describe(keys.rule_of(argument)))
            tables.append(f"| `{group}.{argument.name}` | {rule} | {default} | {cell(argument.help)} |")
    return ["", f"## {group}", *tables] if tables else []


def shown(value: object) -> str:
    """A default as one writes it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def requirements(language: str) -> str:
    """docs/site/requirements.yml as tables; a row without a proof says so."""
    words, number = WORDS[language], LANGUAGES.index(language)
    page = yaml.safe_load((SITE / "requirements.yml").read_text("utf-8"))
    lines = [f"# {page['title'][number]}", "", page["intro"][number]]
    for section in page["sections"]:
        lines += ["", f"## {section['title'][number]}", "", words["needs"], "|---|---|---|"]
        for row in section["rows"]:
            links = [f"[{posixpath.basename(path)}](repo:{path})" for path in row.get("proof", [])]
            note = row.get("note", ["", ""])[number]
            proof = ", ".join(links) or f"**{words['without']}**"
            command = f"`{cell(row['run'])}`" if "run" in row else ""
            lines.append(f"| {row['what'][number]} | {command} | {proof}{f'. {note}' if note else ''} |")
    return "\n".join(lines) + "\n"


def messages(language: str) -> str:
    """Every sentence with which a command ends, by area, each with what docs/site/messages.yml adds to it."""
    number = LANGUAGES.index(language)
    notes = yaml.safe_load((SITE / "messages.yml").read_text("utf-8"))
    areas: dict[str, list[str]] = {}
    used = set()
    for path, text in sentences():
        area = next(titles[number] for part, titles in AREAS.items() if part in path)
        note = next((begin for begin in notes if begin in text), None)
        used.add(note)
        line = f"- {escape(text)}" + (f"<br>**→** {notes[note][number]}" if note else "")
        if line not in areas.setdefault(area, []):
            areas[area].append(line)
    if unused := set(notes) - used:
        raise ValueError(f"docs/site/messages.yml explains sentences that nothing prints: {sorted(unused)}")
    return "\n".join(f"\n### {area}\n\n" + "\n".join(lines) for area, lines in sorted(areas.items())) + "\n"


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
        (path.relative_to(ROOT).as_posix(), node.args[0])
        for path, source in sources.items()
        if used.search(source)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).rpartition(".")[2] in named
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


def write() -> None:
    """Write docs/site/build anew."""
    shutil.rmtree(SITE / "build", ignore_errors=True)
    for language in LANGUAGES:
        for name, text in assemble(language).items():
            file = SITE / "build" / language / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        shutil.copy(SITE / "site.css", SITE / "build" / language)


if __name__ == "__main__":
    write()
