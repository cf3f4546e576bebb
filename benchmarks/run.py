"""The README's figures, each measured in one run beside what a user would pick instead: `nox -s bench`.

    nox -s bench                      # everything, two hours on 2 cores, of which learning takes most
    nox -s bench -- overhead          # some of: overhead, start, render, accuracy, updates, data, streaming, learning,
                                      # tables, kills, search, export, recipes, rectangles, serve,
                                      # compress, edge

Data sets come from their publishers, or from the folder or mirror in DATASET_MIRROR. Results go to benchmarks/results.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import copier
import yaml

from tests.render import ROOT, render
from tests.smoke import install

VERSIONS = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))
PROJECT = ROOT / ".nox" / "bench-project"


def main(argv: list[str]) -> int:
    """Run the named benchmarks, or all, and write one Markdown table each."""
    parts: dict[str, Callable[[Path], list[str]]] = {
        "overhead": overhead,
        "start": start,
        "render": rendering,
        "edge": edge,
        "accuracy": accuracy,
        "updates": updates,
        "data": data,
        "streaming": streaming,
        "learning": learning,
        "tables": tables,
        "kills": kills,
        "search": search,
        "export": export,
        "recipes": recipes,
        "rectangles": rectangles,
        "serve": serve,
        "compress": compress,
    }
    unknown = [name for name in argv if name not in parts]
    if unknown:
        print(f"There is no benchmark {', '.join(unknown)}. Available: {', '.join(parts)}.")
        return 1
    shutil.rmtree(PROJECT, ignore_errors=True)
    render(PROJECT, yaml.safe_load((ROOT / "examples" / "both.yml").read_text("utf-8")))
    python = install(PROJECT)
    run(python, "scripts/download.py", "data=mnist")
    for name in argv or parts:
        text = "\n".join(parts[name](python))
        print(f"\n{text}\n", flush=True)
        (ROOT / "benchmarks" / "results" / f"{name}.md").write_text(text + "\n", "utf-8")
    return 0


def overhead(python: Path) -> list[str]:
    """Epochs of our trainers against a hand-written loop and Lightning as its documentation starts it."""
    rows = ["| framework | step of the loop | our epoch / loop | Lightning's defaults / loop | final weights |"]
    rows.append("|---|---:|---:|---:|---|")
    for framework in ("lightning", "paddle"):
        done = run(python, str(ROOT / "benchmarks" / "overhead.py"), framework)
        rows += [line for line in done.splitlines() if line.startswith("|")]
    return rows


def export(python: Path) -> list[str]:
    """Each network exported to ONNX, and how far its outputs are from the framework's."""
    rows = ["| framework | network | nodes | MB | largest difference |", "|---|---|---:|---:|---:|"]
    for framework in ("lightning", "paddle"):
        rows += run(python, str(ROOT / "benchmarks" / "export.py"), framework).splitlines()
    return rows


def rectangles(python: Path) -> list[str]:
    """Squares against rectangles on photos."""
    run(python, "scripts/download.py", "data=coco128")
    return run(python, str(ROOT / "benchmarks" / "rectangles.py")).splitlines()


def recipes(python: Path) -> list[str]:
    """Teachers, averaged weights, fine-tuning, augmentation and class weights, each beside training without it."""
    for name in ("cifar10", "digit_scenes"):
        run(python, "scripts/download.py", f"data={name}")
    return run(python, str(ROOT / "benchmarks" / "recipes.py")).splitlines()


def serve(python: Path) -> list[str]:
    """The service beside LitServe and the bare network, with the small network for the digits; made-up requests."""
    environment = ROOT / ".nox" / "litserve"
    other = environment / "bin" / "python"
    core = [line for line in VERSIONS["packages"]["serving_core"] if "onnxruntime" not in line]
    subprocess.run(["uv", "venv", "-q", "--clear", "--python", python, environment], check=True)
    packages = ["litserve==0.2.19", "onnxruntime", "python-multipart", "schemathesis==4.32.5", *core]
    subprocess.run(["uv", "pip", "install", "-q", "--python", other, *packages], check=True)
    run(python, "scripts/train.py", "data=digits", "framework=lightning", "trainer.max_epochs=1", "name=served")
    [folder] = (PROJECT / "outputs").glob("served-*")
    run(python, "scripts/export.py", str(folder), "--format", "onnx")
    return run(python, str(ROOT / "benchmarks" / "serving.py"), str(folder / "export"), str(other)).splitlines()


def compress(python: Path) -> list[str]:
    """What smaller networks gain and cost: ratios to the whole network, and accuracies of the test split."""
    head = "| network, data | seeds | compressed by | parameters | mult. | zipped file "
    rows = [head + "| whole | right after | trained on | worst | as small, alone |", "|---|---:|---|" + "---:|" * 8]
    for framework in ("lightning", "paddle"):
        rows += run(python, str(ROOT / "benchmarks" / "compress.py"), framework).splitlines()
    return rows


def start(python: Path) -> list[str]:
    """Time to `--help` and to the answer to a misspelt key, and that no framework was imported for it."""
    rows = ["| command | s, median of 7 | frameworks imported |", "|---|---:|---|"]
    for arguments in (["--help"], ["modle=resnet18"], ["model=resnet81"], ["trainer.max_epoch=1"]):
        times = [seconds(python, "scripts/train.py", *arguments) for _ in range(7)]
        traced = subprocess.run(
            [python, "-X", "importtime", "scripts/train.py", *arguments], cwd=PROJECT, capture_output=True, text=True
        )
        loaded = {line.rpartition("|")[2].strip() for line in traced.stderr.splitlines()}
        found = sorted(loaded & {"torch", "paddle", "pytorch_lightning", "numpy", "matplotlib"})
        rows.append(
            f"| `train.py {' '.join(arguments)}` | {statistics.median(times):.2f} | {', '.join(found) or 'none'} |"
        )
    rows += ["", "| training, 15 epochs of the digits | CPU s, median of 3 | CPU time / plain Lightning |"]
    rows.append("|---|---:|---:|")
    script = str(ROOT / "benchmarks" / "plain_lightning.py")
    plain = statistics.median(cpu_seconds(python, script, "digits") for _ in range(3))
    rows.append(f"| a plain Lightning script | {plain:.2f} | 1.00 |")
    for framework in ("lightning", "paddle"):
        ours = statistics.median(cpu_seconds(python, "scripts/train.py", f"framework={framework}") for _ in range(3))
        rows.append(f"| `train.py framework={framework}` | {ours:.2f} | {ours / plain:.2f} |")
    return rows


def rendering(python: Path) -> list[str]:
    """Rendering against copier copying as many plain files of the same size."""
    rows = ["| variant | files | our render / plain copy |", "|---|---:|---:|"]
    for name in ("lightning", "paddle", "both"):
        answers = yaml.safe_load((ROOT / "examples" / f"{name}.yml").read_text("utf-8")) or {}
        with tempfile.TemporaryDirectory() as folder:
            rows.append(f"| {name} | {compare_rendering(Path(folder), answers)} |")
    return rows


def edge(python: Path) -> list[str]:
    """Exported networks in each runtime and precision: scores, sizes, times, memory."""
    run(Path("uv"), "pip", "install", "--python", str(python), "-r", str(PROJECT / "requirements-edge.txt"))
    return run(python, str(ROOT / "benchmarks" / "edge.py")).splitlines()


def compare_rendering(folder: Path, answers: dict[str, Any]) -> str:
    """Number of files, and the ratio of the medians of 7 interleaved renderings."""
    render(folder / "first", answers)
    shutil.copytree(folder / "first", folder / "plain")
    (folder / "plain" / "copier.yml").write_text("_templates_suffix: .jinja\n", "utf-8")
    ours, theirs = [], []
    for number in range(7):  # interleaved, so that a busy moment hits both
        ours.append(timed(partial(render, folder / f"ours-{number}", answers)))
        plain = partial(copier.run_copy, str(folder / "plain"), folder / f"plain-{number}", defaults=True, quiet=True)
        theirs.append(timed(plain))
    files = sum(path.is_file() for path in (folder / "first").rglob("*"))
    return f"{files} | {statistics.median(ours) / statistics.median(theirs):.2f}"


def accuracy(python: Path) -> list[str]:
    """Seconds from a command's start to a test accuracy, beside an MNIST epoch written as Lightning's guide does."""
    head = "| command | s to the test accuracy | test accuracy | time / plain Lightning |"
    rows = [head, "|---|---:|---:|---:|"]
    plain = [until_accuracy(python, str(ROOT / "benchmarks" / "plain_lightning.py"), "data/mnist") for _ in range(3)]
    base = statistics.median(took for took, _ in plain)
    rows.append(f"| Lightning, torchvision and an MLP, 1 epoch of MNIST | {base:.1f} | {plain[0][1]:.3f} | 1.00 |")
    for framework in ("lightning", "paddle"):
        for options in (["data=digits"], ["experiment=mnist_fast"]):
            command = ["scripts/train.py", *options, f"framework={framework}", "tracker=none"]
            runs = [until_accuracy(python, *command, f"seed={seed}") for seed in (1, 2, 3)]
            took, worst = statistics.median(took for took, _ in runs), min(reached for _, reached in runs)
            name = " ".join(["train.py", *options, f"framework={framework}"])
            rows.append(f"| `{name}` | {took:.1f} | {worst:.4f} (worst of 3 seeds) | {took / base:.2f} |")
    return rows


def updates(python: Path) -> list[str]:
    """Render and update time against an equally large plain template, and what random edits lost."""
    command = [sys.executable, "-m", "benchmarks.updates"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def data(python: Path) -> list[str]:
    """Our loader against Pillow and a DataLoader, and training on real data against training on synthetic data."""
    head = "| data | network | framework | our loader / Pillow + DataLoader | from memory | real / synthetic |"
    rows = [head, "|---|---|---|---:|---:|---:|"]
    run(python, "scripts/download.py", "data=cifar10")
    photos = {name: write_photos(python, name) for name in ("as published", "at quality 90")}
    sources = {f"COCO128 {name}": ["data=image_folder", f"data.root={folder}"] for name, folder in photos.items()}
    sources |= {name: [f"data={name}"] for name in ("mnist", "cifar10")}
    for name, keys in sources.items():
        model = "small_cnn" if name == "mnist" else "resnet18"
        for framework in ("lightning", "paddle"):
            options = [f"framework={framework}", f"model={model}", "data.batch_size=32", "--json", *keys]
            ratios = json.loads(run(python, "scripts/benchmark_data.py", *options))["ratios"]
            found = [ratios.get(key) for key in ("ours / plain", "cached / plain", "real / synthetic")]
            values = " | ".join("-" if value is None else f"{value:.2f}" for value in found)
            rows.append(f"| {name} | {model} | {framework} | {values} |")
    return rows


def write_photos(python: Path, name: str) -> Path:
    """COCO128's photos in two class folders; as they are, they are stored with colours at full resolution."""
    from PIL import Image

    folder = PROJECT / "data" / f"photos {name}".replace(" ", "-")
    if not folder.is_dir():
        run(python, "scripts/download.py", "data=coco128")
        for number, path in enumerate(sorted((PROJECT / "data" / "coco128").rglob("*.jpg"))):
            target = folder / ("even", "odd")[number % 2] / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name == "as published":
                shutil.copy(path, target)
            else:
                Image.open(path).convert("RGB").save(target, quality=90)
    return folder


def streaming(python: Path) -> list[str]:
    """Shards: memory of an epoch of a million samples, and their speed beside plain files."""
    folder = write_photos(python, "at quality 90")
    return run(python, str(ROOT / "benchmarks" / "streaming.py"), str(folder)).splitlines()


def learning(python: Path) -> list[str]:
    """Every task's network on small data, until it has learned it."""
    rows = run(python, str(ROOT / "benchmarks" / "learning.py")).splitlines()
    return [line for line in rows if line.startswith("|")]


def tables(python: Path) -> list[str]:
    """Networks and trees on open tables, which come with packages."""
    run(Path("uv"), "pip", "install", "--python", str(python), "--no-deps", "statsmodels", "vega_datasets", "ISLP")
    rows = run(python, str(ROOT / "benchmarks" / "tables.py"), "lightning", "paddle").splitlines()
    return [line for line in rows if line.startswith("|")]


def kills(python: Path) -> list[str]:
    """SIGKILLs at random moments of trainings, and how many of these end like an undisturbed one."""
    head = "| framework | SIGKILLs | before a checkpoint | in training | in a save | in the evaluation | trainings |"
    rows = [f"{head} bit-identical at the end |", f"|---|{'---:|' * 7}"]
    return rows + in_both_frameworks(python, "kills.py", 100)


def search(python: Path) -> list[str]:
    """SIGKILLs of a search, of a trial and of everything, and how it ends, compared with an undisturbed one."""
    head = "| framework | SIGKILLs | of the search | of everything | of a trial | trials | lost | epochs repeated |"
    rows = [f"{head} equal to the undisturbed search |", f"|---|{'---:|' * 8}"]
    return rows + in_both_frameworks(python, "search.py", 20)


def in_both_frameworks(python: Path, script: str, kills: int) -> list[str]:
    """The rows that a script prints for this many kills in each framework."""
    done = [run(python, str(ROOT / "benchmarks" / script), name, str(kills)) for name in ("lightning", "paddle")]
    return [line for text in done for line in text.splitlines() if line.startswith("|")]


def until_accuracy(python: Path, *arguments: str) -> tuple[float, float]:
    """Seconds until the command prints the test accuracy, and that accuracy."""
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([python, *arguments], cwd=PROJECT, stdout=subprocess.PIPE, text=True, env=environment)
    took, reached, split = 0.0, 0.0, ""
    assert process.stdout
    for line in process.stdout:
        split = line.split()[0] if "split," in line else split
        if split == "test" and line.split()[0] == "accuracy":
            took, reached = time.perf_counter() - started, float(line.split()[1])
    assert process.wait() == 0 and took, f"{arguments} gave {process.returncode}"
    return took, reached


def run(python: Path, *arguments: str) -> str:
    """A command's output, in the project."""
    return subprocess.run([python, *arguments], cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout


def cpu_seconds(python: Path, *arguments: str) -> float:
    """CPU seconds of a command, user and system, on one thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([python, *arguments], cwd=PROJECT, capture_output=True, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def seconds(python: Path, *arguments: str) -> float:
    """Wall time of a command."""
    return timed(lambda: subprocess.run([python, *arguments], cwd=PROJECT, capture_output=True, check=False))


def timed(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
