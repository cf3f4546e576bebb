"""README.md and the guides as projects of several kinds get them."""

import re

import yaml
from jinja2 import Environment

from paths import TEMPLATE

PACKAGES = yaml.safe_load((TEMPLATE.parent / "versions.yml").read_text("utf-8"))["packages"]
SCENES = ("detection", "segmentation", "instance_segmentation")
STARTS = {
    "classification": ["small_cnn", "digits", "cross_entropy"],
    "detection": ["yolov10n", "digit_scenes", "boxes"],
    "segmentation": ["deeplab_mobilenet_v2", "digit_scenes", "pixels"],
    "instance_segmentation": ["mask_rcnn_resnet18", "digit_scenes", "network"],
    "tabular": ["tabular_mlp", "breast_cancer", "cross_entropy"],
}


def answers(
    framework: str = "lightning",
    task: str = "classification",
    dataset: str = "digits",
    tracker: str = "tensorboard",
    extras: tuple = ("serving",),
) -> dict:
    """What copier.yml makes of these answers."""
    start = list(STARTS["classification" if task == "all" else task])
    start[1] = dataset if task in ("classification", "all") else start[1]
    return {
        "project_name": "Leaves",
        "description": "Names leaves.",
        "license": "MIT",
        "framework": framework,
        "backends": ["lightning", "paddle"] if framework == "both" else [framework],
        "task": task,
        "tasks": [*SCENES, "tabular"] if task == "all" else [task],
        "scenes": task in (*SCENES, "all"),
        "dataset": dataset,
        "start": start,
        "tracker": tracker,
        "extras": list(extras),
        "requirements": "requirements-cpu.txt",
        "newest_python": "3.13",
        "versions": {"python": {"minimum": "3.10"}, "template": "v1.0.0", "packages": PACKAGES},
    }


KINDS = {
    "lightning": answers(),
    "paddle": answers("paddle", dataset="image_folder", tracker="mlflow", extras=()),
    "cifar10": answers(dataset="cifar10", tracker="wandb"),
    **{task: answers(task=task, tracker="none") for task in (*SCENES, "tabular")},
    "everything": answers("both", "all", extras=("streaming", "search", "serving", "cluster")),
}


def documents(kind: str) -> dict[str, str]:
    """Name -> text of the documents of a project, as `_exclude` leaves them."""
    given = KINDS[kind]
    plain = ["data.md"] + ["scenes.md"] * given["scenes"] + ["tabular.md"] * ("tabular" in given["tasks"])
    plain += ["shards.md"] * ("streaming" in given["extras"])
    texts = {name: (TEMPLATE / "docs" / name).read_text("utf-8") for name in plain}
    for name in ["README.md", "docs/guide.md"] + ["docs/cluster.md"] * ("cluster" in given["extras"]):
        template = Environment(keep_trailing_newline=True).from_string((TEMPLATE / f"{name}.jinja").read_text("utf-8"))
        texts[name.rpartition("/")[2]] = template.render(given)
    return texts


def commands(text: str) -> list[str]:
    """The lines of code blocks and the spans of code, without comments."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", outside)
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines]


def code_blocks(text: str) -> dict[str, str]:
    """File name -> code, of the Python blocks that begin with `# src/...`."""
    return dict(re.findall(r"```python\n# (src/\S+)\n(.+?)```", text, re.DOTALL))


def yaml_block(text: str, name: str) -> str:
    """The YAML block that begins with `name: NAME`."""
    (found,) = re.findall(rf"```yaml\n(name: {name}\n.*?)```", text, re.DOTALL)
    return found
