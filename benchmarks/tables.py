"""Networks and trees on open tables, in equal splits.

    python benchmarks/tables.py [lightning] [paddle] [model.hidden=[256,256]]    # in the folder of a generated project

The tables come with packages: pip install --no-deps statsmodels vega_datasets ISLP. Each score is the mean of three
seeds, each of which draws its own splits, with the standard deviation. Prints a Markdown table.
"""

import json
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

SEEDS = (0, 1, 2)
# name -> package, file, target, columns to drop, score; r2 where the target is a number
TABLES = {
    "Seattle weather": ("vega_datasets", "_data/seattle-weather.csv", "weather", [], "f1_macro"),
    "orange juice": ("ISLP", "data/OJ.csv", "Purchase", [], "accuracy"),
    "card default": ("ISLP", "data/Default.csv", "default", [], "roc_auc"),
    "bike hire": ("ISLP", "data/Bikeshare.csv", "bikers", ["casual", "registered"], "r2"),
    "wages": ("ISLP", "data/Wage.csv", "wage", ["logwage"], "r2"),
    "doctor visits (randhie)": ("statsmodels", "datasets/randhie/randhie.csv", "mdvis", [], "r2"),
    "affairs": ("statsmodels", "datasets/fair/fair.csv", "affairs", [], "r2"),
}


def locate(package: str, file: str) -> Path:
    """The file of an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"{package} is not installed: pip install --no-deps statsmodels vega_datasets ISLP")
    return Path(spec.origin).parent / file


def measure(name: str, framework: str, model: str, seed: int, keys: list[str]) -> tuple[float, int]:
    """Test score of one training, and its test rows."""
    package, file, target, dropped, score = TABLES[name]
    task = ["task=tabular_regression", "data.target.kind=number"] if score == "r2" else ["task=tabular"]
    folder = Path("outputs") / "tables"
    before = set(folder.glob("*/evaluation-test.json"))
    own = keys if model != "trees" else []
    command = [sys.executable, "scripts/train.py", f"framework={framework}", *task, "data=table_file", f"model={model}"]
    command += [f"data.root={locate(package, file)}", f"data.target.column={target}", f"seed={seed}", "tracker=none"]
    command += [f"data.columns.drop=[{','.join(dropped)}]", f"output_dir={folder.as_posix()}", *own]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    [path] = set(folder.glob("*/evaluation-test.json")) - before
    result = json.loads(path.read_text("utf-8"))
    return float(result[score]), int(result["samples"])


def main(argv: list[str]) -> None:
    """Print the table."""
    frameworks = [word for word in argv if word in ("lightning", "paddle")] or ["lightning"]
    keys = [word for word in argv if "=" in word]
    columns = ["trees", *(f"MLP, {framework}" for framework in frameworks)]
    print(f"| table | test rows | score | {' | '.join(columns)} |\n|---|---:|---|{'---:|' * len(columns)}")
    for name, (*_, score) in TABLES.items():
        cells = []
        for framework, model in [(frameworks[0], "trees"), *((framework, "tabular_mlp") for framework in frameworks)]:
            found = [measure(name, framework, model, seed, keys) for seed in SEEDS]
            scores = [value for value, _ in found]
            cells.append(f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}")
        print(f"| {name} | {found[0][1]:,} | {score} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
