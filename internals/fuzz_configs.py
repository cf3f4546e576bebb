# ruff: noqa: E402, E501
"""Configurations that nobody should write: each must train a little, or end in one sentence.

    cd template && python ../internals/fuzz_configs.py 1000      # seeded, both frameworks; test_fuzz_configs.py runs a few

An example is a command line of 1 to 3 overrides, at the bounds of their rules or beyond, and, in a third of them, a YAML file of the project that was changed:
keys renamed, dropped or moved, values of another type, size or alphabet. What the configuration lets through is built
and trained for two batches, so values that break the network, the optimizer, the schedule or the trainer count too.
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "template"), str(Path(__file__).resolve().parent)]
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from src.kit.config import compose, load_config, option_names, run_main
from src.kit.config.aliases import table
from src.kit.config.keys import component_rules, leaves, reference
from src.kit.run import Run
from tests.support import fit

CONFIGS = compose.CONFIGS
GROUPS = sorted(compose.group_names())
BASE = ["tracker=none", "data=digits", "data.batch_size=8"]
# whatever was drawn, the training stays small and in this process
SMALL = ["trainer.devices=1", "trainer.num_nodes=1", "trainer.folds=null", "trainer.limit_train_batches=2"]
SMALL += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.max_epochs=1"]
SLOW = (
    "wandb",
    "mlflow",
    "yolov10",
    "retinanet",
    "mask_rcnn",
    "deeplab",
    "efficientnet",
    "resnet50",
    "resnet34",
    "scenes",
)

odd = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 7, 2**31, 2**63, 10**20, 10**400, 0.0, -0.5, 0.5, 1.0, 1.5, 1e-320, 1e308, 1e20]),
    st.sampled_from(
        [".inf", "-.inf", ".nan", "null", "~", "true", "yes", "off", "", "two", "None", "1e", "0x10", "1_0"]
    ),
    st.sampled_from(
        ["[]", "[0.9]", "[1, a]", "[null]", "[[1]]", "{}", "{a: 1}", "{1: 2}", "[1,2,3]", "- a", "[", "a: b"]
    ),
    st.sampled_from(
        ["../../x", "/tmp/x/y", "a\nb", 300 * "a", "é" * 150, "a b", "#", "a #b", "\t", "'", '"', "\\", "*x", "&x"]
    ),
    st.sampled_from(
        ["${seed}", "${nothing}", "${oc.env:NO_SUCH}", "${", "${name}", "${.name}", "${data}", "${oc.decode:x}"]
    ),
    st.sampled_from(
        ["auto", "none", "adamw", "32", "16", "gpu", "mps", "2024-01-01", "1:30", "010", "\ud800", "\0", "???"]
    ),
    st.text(max_size=6),
    st.integers(-5, 40),
    st.floats(width=16),
).map(str)


def known_keys() -> dict[str, Any]:
    """Rules of the keys of the options that train here."""
    rules: dict[str, Any] = dict(reference())
    for words in (
        [],
        ["model=resnet18"],
        ["optimizer=sgd"],
        *([f"scheduler={name}"] for name in option_names("scheduler")),
    ):
        cfg = load_config(words)
        rules |= {key: {} for key in leaves(cfg).keys() - rules.keys()} | component_rules(cfg)
    return {key: rule for key, rule in sorted(rules.items()) if not key.startswith("data.select")}


RULES = known_keys()
KEYS = list(RULES)


@st.composite
def allowed_override(draw: st.DrawFn) -> str:
    """A key with a value that its rule allows, mostly at a bound: what the check lets through must train or be refused."""
    key = draw(st.sampled_from(KEYS))
    rule = RULES[key]
    values: list[Any] = [*rule.get("choices", []), *(["null"] if rule.get("null") else [])]
    kinds = rule.get("type", "str").split("|")
    low, high = rule.get("min", rule.get("above", 0)), rule.get("max", rule.get("below", 9)) or 9
    numbers: list[Any] = [low, low + 1, high] if "int" in kinds else []
    numbers += [float(low), low + 1e-9, (low + high) / 2, high - 1e-9, float(high)] if "float" in kinds else []
    if "list" in kinds:
        numbers = [[low + 0.5] * count for count in (1, 2, 3)] if rule.get("items") == "float" else [["a"], [1, 2]]
    values += numbers + (["a", "x y"] if "str" in kinds else []) + ([True, False] if "bool" in kinds else [])
    return f"{key}={draw(st.sampled_from(values or ['null']))}"


WORDS = sorted(word for word in [*table()["means"], *table()["answers"]] if "=" not in word)
OPTIONS = [f"{group}={name}" for group in GROUPS for name in option_names(group)]
OPTIONS = [option for option in OPTIONS if not any(slow in option for slow in SLOW)]
KINDS = {  # how often, and what
    "allowed": (16, allowed_override()),
    "key": (6, st.builds("{}={}".format, st.sampled_from(KEYS), odd)),
    "option": (3, st.sampled_from(OPTIONS)),
    "word": (2, st.builds("{}={}".format, st.sampled_from([*GROUPS, "framework", *WORDS]), odd)),
    "prefix": (1, st.builds("{}{}={}".format, st.sampled_from(["+", "~", "--", "trainer.extra.", "trainer.callbacks."]), odd, odd)),
    "below": (1, st.builds("{}.{}={}".format, st.sampled_from(KEYS), odd, odd)),
    "bare": (1, odd),
}  # fmt: skip
argument = st.sampled_from([name for name, (count, _) in KINDS.items() for _ in range(count)]).flatmap(
    lambda name: KINDS[name][1]
)


@st.composite
def changed_file(draw: st.DrawFn) -> tuple[str, str]:
    """A YAML file of the project and its new text."""
    name = draw(st.sampled_from(["config.yaml", "optimizer/adamw.yaml", "optimizer/sgd.yaml", "model/small_cnn.yaml",
                                 "data/digits.yaml", "data/default.yaml", "trainer/default.yaml", "scheduler/one_cycle.yaml",
                                 "loss/cross_entropy.yaml", "task/classification.yaml", "experiment/odd.yaml"]))  # fmt: skip
    path = CONFIGS / name
    values: Any = yaml.safe_load(path.read_text("utf-8")) if path.exists() else {"trainer": {"max_epochs": 1}}
    for _ in range(draw(st.integers(1, 3))):
        text = draw(odd)
        with contextlib.suppress(yaml.YAMLError, ValueError):
            text = yaml.safe_load(text)
        key = draw(
            st.sampled_from([*values, "defaults", "name", "file", "tasks"]) if isinstance(values, dict) else st.just("")
        )
        match draw(st.sampled_from(["set", "set", "drop", "rename", "nest", "add", "whole"])):
            case "set":
                values[key] = text
            case "drop":
                values.pop(key, None)
            case "rename":
                values[draw(odd)] = values.pop(key, text)
            case "nest":
                values[key] = {draw(st.sampled_from(["a", "name", "max_epochs"])): values.get(key)}
            case "add":
                values["defaults"] = draw(
                    st.sampled_from([["_self_"], [{"model": "resnet18"}], [{"override /model": "x"}], "x", [1]])
                )
            case "whole" if draw(st.integers(0, 5)) == 0:
                return name, draw(odd)
    try:
        return name, yaml.safe_dump(values, allow_unicode=True)
    except yaml.YAMLError:
        return name, "a: 1"


example = st.tuples(
    st.sampled_from(["lightning", "paddle"]),
    st.lists(argument, min_size=1, max_size=3),
    st.one_of(st.none(), st.none(), changed_file()),
)


def outcome(framework: str, words: list[str], changed: tuple[str, str] | None) -> str:
    """ "trained" or "refused"; anything else is the last line of a traceback, or a message of several lines."""
    folder = Path(tempfile.mkdtemp())
    messages = io.StringIO()
    compose.CONFIGS = CONFIGS
    try:
        if changed:
            compose.CONFIGS = folder / "src" / "configs"
            shutil.copytree(CONFIGS, compose.CONFIGS)
            (compose.CONFIGS / changed[0]).write_text(changed[1], "utf-8", "surrogateescape")
            words = [*words, "experiment=odd"] if "odd" in changed[0] else words

        def main(argv: list[str]) -> None:
            load_config(argv)
            cfg = load_config([*argv, *SMALL, f"output_dir={folder}/out"])
            cfg.trainer.limit_train_batches = 2
            with Run(cfg) as run:
                fit(cfg, run)

        with contextlib.redirect_stderr(messages), contextlib.redirect_stdout(io.StringIO()):
            run_main(main, [*BASE, f"framework={framework}", *words])
    except SystemExit as error:
        lines = messages.getvalue().strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        fine = error.code == 2 and len(errors) == 1 and lines[-1] == errors[0] and not list(folder.glob("out/*"))
        return "refused" if fine else f"exit {error.code}: {messages.getvalue()[-300:]}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "/src/" in frame.filename]
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
        return f"{type(error).__name__} at {place}: {str(error)[:200]!r}"
    finally:
        compose.CONFIGS = CONFIGS
        shutil.rmtree(folder, ignore_errors=True)
    return "trained"


def fuzz(count: int, start: int = 0) -> Counter[str]:
    """Outcomes of `count` examples."""
    outcomes: Counter[str] = Counter()
    shown: set[str] = set()

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(example)
    def one(drawn: Any) -> None:
        result = outcome(*drawn)
        outcomes[result if result in ("trained", "refused") else "failed"] += 1
        if result not in ("trained", "refused") and (place := result.partition(": ")[0]) not in shown:
            shown.add(place)
            print(f"{result}\n    {drawn!r}"[:900], flush=True)

    one()
    return outcomes


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    print(dict(fuzz(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
