"""Annotation files spoiled at random: readers and checks answer each with data or a sentence, and they agree.

`FUZZ_EXAMPLES=334` makes a thousand files of the three tests.
"""

import copy
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from checked_data import picture, run
from scene_files import configuration
from src.kit.catalog import build_dataset
from src.kit.errors import UserError
from src.kit.scenes import coco_format

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
MOST_MIB = 400  # that all examples of a test may add to the process
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 100, suppress_health_check=list(HealthCheck)
)

deep: Any = "x"
for _ in range(300):
    deep = [deep]
HOSTILE = st.one_of(
    st.sampled_from(
        [None, True, False, -1, 0, 0.5, 1.0, "0", "1", "", "1.5", 2**31, 2**63, 10**30, 1e8, -1e8, 1e39, 1e308, -1e308]
    ),
    st.sampled_from(
        [float("inf"), float("nan"), [], {}, [[]], [None], "\ud800", "\0", "x" * 5000, "a/" * 300, "../a.png", deep]
    ),
    st.sampled_from(
        [
            [[1, 1, 2, 2]],
            [[1e8, 1, 2, 1e8, 3, 3]],
            [[-1e300, 1, 1e300, 2, 3, 1e9]],
            {"size": [48, 64], "counts": "ooooooo"},
            {"size": [48, 64], "counts": "PPPPPPPPPP1"},
            {"size": [48, 64], "counts": [3072]},
            {"size": [2**31, 2**31], "counts": [2**62]},
            {"size": [64, 48], "counts": [3072]},
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)
CONTENT = {
    "info": {"year": 2026, "deep": {"a": [1]}},
    "images": [{"id": k, "file_name": f"{k}.png", "width": 64, "height": 48} for k in (1, 2)],
    "annotations": [
        {
            "id": k,
            "image_id": 1 + k % 2,
            "category_id": 1 + k // 2,
            "bbox": [1, 1, 20, 20],
            "iscrowd": 0,
            "segmentation": [[1, 1, 21, 1, 21, 21]],
        }
        for k in range(4)
    ],
    "categories": [{"id": k, "name": name, "supercategory": "none"} for k, name in ((1, "cat"), (2, "dog"))],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


PLACES = places(CONTENT)[1:]


def spoil(content: Any, path: tuple[Any, ...], how: str, value: Any) -> None:
    """Replace, delete or repeat a value, if it is still there."""
    try:
        for key in path[:-1]:
            content = content[key]
        if how == "delete":
            del content[path[-1]]
        elif how == "repeat" and isinstance(content, list):
            content.append(copy.deepcopy(content[path[-1]]))
        else:
            content[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        pass


def read_all(name: str, root: Path, task: str) -> None:
    """Build the training split and read every image as the task does."""
    cfg = configuration(name, root, val_fraction=0.0, test_fraction=0.0)
    cfg.task = task
    scenes = build_dataset(cfg, "train")
    for index in range(len(scenes)):
        scenes.read(index)
        if scenes.has_outlines or scenes.has_class_maps:
            scenes.as_class_maps().read(index)


def agree(name: str, root: Path, task: str) -> None:
    """The reader gives data or a sentence; what it refuses, the check reports as an error."""
    coco_format.read_once.cache_clear()  # two files may be written within one tick of the clock
    refused = ""
    try:
        read_all(name, root, task)
    except UserError as error:
        refused = str(error)
        assert all(line.startswith("  ") for line in refused.split("\n")[1:])  # a list of files
        assert len(refused) < 1500, refused
    try:
        errors = [finding for finding in run(name, root, task).findings if finding.severity == "error"]
    except UserError:
        return  # no such data set at all, which the reader refuses too
    assert errors or not refused, f"only the reader refuses: {refused}"


@pytest.fixture(autouse=True)
def bounded():
    """Memory stays bounded."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MIB * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Callable[[str], Path]:
    """Two images in the folder of a format, which the examples share."""

    def make(name: str) -> Path:
        root = tmp_path_factory.getbasetemp() / f"fuzz_{name}"
        if not root.exists():
            for number in (1, 2):
                picture(root / ("train" if name == "coco" else "images/train") / f"{number}.png", number)
            for part in ("annotations", "labels/train", "masks/train"):
                (root / part).mkdir(parents=True)
        return root

    return make


@fuzzed
@given(
    faults=st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["replace", "replace", "delete", "repeat"]), HOSTILE),
        min_size=1,
        max_size=4,
    ),
    flip=st.one_of(st.none(), st.none(), st.none(), st.tuples(st.floats(0, 1), st.integers(0, 255))),
    task=st.sampled_from(["detection", "instance_segmentation"]),
)
def test_coco_files(folder, faults, flip, task):
    root = folder("coco")
    content = copy.deepcopy(CONTENT)
    for path, how, value in faults:
        spoil(content, path, how, value)
    encoded = bytearray(json.dumps(content).encode())
    if flip:
        encoded[int(flip[0] * (len(encoded) - 1))] = flip[1]
    (root / "annotations" / "train.json").write_bytes(encoded)
    agree("coco_folder", root, task)


WORDS = st.one_of(
    st.sampled_from(["0", "1", "2", "-1", "1.0", "0.5", "0.1", "0.9", "nan", "inf", "1e308", "1e-320", "9" * 400, "x"]),
    st.sampled_from(["0.5", "0.25", "0.75", "2", "1_0", "٣", "\ud800", "\0"]),
    st.floats(0, 1).map(str),
)
YAMLS = st.one_of(
    st.sampled_from(
        [
            "names: [cat, dog]",
            "names: {0: yes, 1: no}",
            "names: [001, 010]\nkpt_shape: [2, 3]",
            "names: [a]\nkpt_shape: [1, 2]",
            "names: [a, b]\nkpt_shape: 17",
            "names: !!python/object:os.system [x]",
            "names: " + "[" * 3000,
            "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]",
            "nc: 2",
            "- x",
            "\t",
            "names: {0: a, 2: b}",
        ]
    ),
    st.lists(st.text(max_size=6), max_size=3).map(lambda names: json.dumps({"names": names})),
    st.text(max_size=40),
)


GOOD = st.sampled_from(["0 0.5 0.5 0.4 0.4", "1 0.2 0.2 0.6 0.2 0.4 0.7", "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.4 0.4 1"])


@fuzzed
@given(
    header=st.one_of(st.just("names: [cat, dog]"), st.just("names: [yes, 010]\nkpt_shape: [2, 3]"), YAMLS),
    lines=st.lists(st.one_of(GOOD, GOOD, GOOD, st.lists(WORDS, max_size=14).map(" ".join)), max_size=5),
    raw=st.one_of(st.none(), st.none(), st.binary(max_size=60)),
)
def test_yolo_files(folder, header, lines, raw):
    root = folder("yolo")
    (root / "data.yaml").write_text(header, "utf-8", "surrogatepass")
    text = "\n".join(lines).encode("utf-8", "surrogatepass") if raw is None else raw
    (root / "labels" / "train" / "1.txt").write_bytes(text)
    agree("yolo_folder", root, "detection")


TABLES = st.one_of(
    st.sampled_from(
        [
            "id,name\n1,cat\n2,dog\n",
            "name;r;g;b\ncat;1;0;0\ndog;0;0;255\n",
            "id,name\n0,sky\n255,cat\n",
            "name,id\ncat,300\ndog,65535\n",
            "id,name\n99999999999999999999,cat\n",
            "id,name\n²,cat\n",
            'id,name\n"1,cat\n',
            "id,name\n\0,cat\n",
        ]
    ),
    st.text(max_size=30).map(lambda text: f"id,name\n{text}"),
)


@fuzzed
@given(
    table=st.one_of(st.just("id,name\n1,cat\n2,dog\n"), TABLES),
    mode=st.sampled_from(["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I", "F"]),
    size=st.sampled_from([(48, 64), (48, 64), (48, 64), (64, 48), (1, 1)]),
    values=st.lists(st.sampled_from([0, 1, 2, 3, 254, 255, 300, 65535]), min_size=1, max_size=4),
    raw=st.one_of(st.none(), st.none(), st.none(), st.binary(max_size=60), st.floats(0, 1)),
)
def test_class_maps(folder, table, mode, size, values, raw):
    root = folder("masks")
    (root / "classes.csv").write_text(table, "utf-8", "surrogatepass", newline="")
    ids = np.resize(np.array(values), size)
    kind = {"1": bool, "I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode, np.uint8)
    made = Image.fromarray(ids.astype(kind))
    for number in (1, 2):
        path = root / "masks" / "train" / f"{number}.{'tif' if mode == 'F' else 'png'}"
        for other in path.parent.glob(f"{number}.*"):
            other.unlink()
        (made.convert(mode) if made.mode != mode and mode not in ("I;16",) else made).save(path)
        if isinstance(raw, bytes):
            path.write_bytes(raw)
        elif raw is not None:
            content = path.read_bytes()
            path.write_bytes(content[: int(raw * len(content))])
    agree("mask_folder", root, "segmentation")
