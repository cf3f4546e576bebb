"""Makes cookiecutter.json of copier.yml: the same questions in the same order, with the same choices and defaults.

python -m tests.cookiecutter_json       # renew it after changing a question
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
# cookiecutter asks every question, and shows texts as they are written.
UNASKED = {
    "{{ task in ['classification', 'all'] }}": "For another task: Enter.",
    "{{ package_index == 'mirror' }}": "Without a mirror: Enter.",
    "{{ help_me_choose }}": "Without help: Enter.",
}
HELP = {
    "framework": "The framework that trains.",
    "gpu": "The CUDA version of your GPU (nvidia-smi shows the newest it can run).",
}
# Where copier works out which choice comes first, cookiecutter's first choice is "auto": the hook leaves it to copier.
AUTO = {"framework": "The one that scores better; without scores PyTorch Lightning", "gpu": "What is found here"}


def expression(text: str) -> str:
    """A default in cookiecutter's Jinja: its extension has the macros, and answers stand in `cookiecutter`."""
    text = re.sub(r"\{% from '[^']+' import \w+ %\}", "", text)
    return re.sub(rf"\b({'|'.join(ASKED)})\b", r"cookiecutter.\1", text) if "{{" in text else text


def offered(question: dict[str, Any]) -> dict[str, str]:
    """Answer -> its text; an answer that only some other answers allow has a rule beside its value."""
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
        if "choices" in question:
            texts = choices(name, question)
            content[name] = list(texts)
            prompts[name] = {"__prompt__": text, **texts}
        else:
            default = question.get("default", "")
            content[name] = expression(default) if isinstance(default, str) else default
            prompts[name] = text
    content |= {"__check": "{{ check() }}", "_extensions": ["cookiecutter_door.Door"], "__prompts__": prompts}
    return content


def text() -> str:
    """The whole file."""
    return json.dumps(cookiecutter_json(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_bytes(text().encode())
