"""Generates cookiecutter.json from copier.yml: the same questions in the same order, with their choices and defaults.

python -m tests.cookiecutter_json       # regenerate it after changing a question
"""

import json
import re
from typing import Any

import yaml

from tests.render import ROOT

FILE = ROOT / "cookiecutter.json"
LOADER = type("Loader", (yaml.SafeLoader,), {})
LOADER.add_constructor("!include", lambda loader, node: node.value)
SETTINGS = yaml.load((ROOT / "copier.yml").read_text("utf-8"), LOADER)
ASKED = {
    name: question
    for name, question in SETTINGS.items()
    if not name.startswith("_") and question.get("when", True) is not False
}
# cookiecutter asks every question, and shows texts literally.
UNASKED = {
    "{{ task in ['classification', 'all'] }}": "For another task: Enter.",
    "{{ package_index == 'mirror' }}": "Without a mirror: Enter.",
    "{{ help_me_choose }}": "Without help: Enter.",
}
HELP = {
    "framework": "Framework to train with.",
    "gpu": "CUDA version for your GPU (nvidia-smi shows the newest it can run).",
}
# Where copier computes the default, cookiecutter's first choice is "auto", and the hook leaves the choice to copier.
AUTO = {"framework": "The one with the better score; PyTorch Lightning without scores", "gpu": "Detect it"}
# cookiecutter has no folder to take the name from before it has the name.
DEFAULTS = {"project_name": "My project"}


def expression(text: str) -> str:
    """A default in cookiecutter's Jinja: the extension has the macros, and `cookiecutter` the answers."""
    text = re.sub(r"\{% from '[^']+' import \w+ %\}", "", text)
    return re.sub(rf"\b({'|'.join(ASKED)})\b", r"cookiecutter.\1", text) if "{{" in text else text


def offered(question: dict[str, Any]) -> dict[str, str]:
    """Answer -> its text; an answer that depends on other answers has a validator next to its value."""
    listed = question["choices"]
    pairs = listed.items() if isinstance(listed, dict) else [(choice, choice) for choice in listed]
    return {value["value"] if isinstance(value, dict) else value: text for text, value in pairs}


def choices(name: str, question: dict[str, Any]) -> dict[str, str]:
    """Answer -> its text, the default first."""
    texts = offered(question)
    if name in AUTO:
        return {"auto": AUTO[name], **texts}
    return {question["default"]: texts[question["default"]], **texts}


def cookiecutter_json() -> dict[str, Any]:
    """Questions and their texts."""
    content: dict[str, Any] = {"__need_copier": "{{ need_copier() }}"}
    prompts: dict[str, Any] = {}
    for name, question in ASKED.items():
        text = " ".join([HELP.get(name, question["help"]), *filter(None, [UNASKED.get(question.get("when", ""))])])
        default = DEFAULTS.get(name, question.get("default", ""))
        if question.get("multiselect"):
            content[name] = ", ".join(default)
            prompts[name] = f"{text} Any of {', '.join(offered(question))}, with commas between; [] for none."
        elif "choices" in question:
            texts = choices(name, question)
            content[name] = list(texts)
            prompts[name] = {"__prompt__": text, **texts}
        else:
            content[name] = expression(default) if isinstance(default, str) else default
            prompts[name] = text
    content |= {"__check": "{{ check() }}", "_extensions": ["cookiecutter_door.Door"], "__prompts__": prompts}
    return content


def text() -> str:
    """The whole file."""
    return json.dumps(cookiecutter_json(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_bytes(text().encode())
