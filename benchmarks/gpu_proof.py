"""Run the proofs that need a GPU, those that tell most first, and keep each as soon as it is measured.

    cd template && python ../benchmarks/gpu_proof.py --data FOLDER --out FOLDER --minutes 7
    python ../benchmarks/gpu_proof.py --out FOLDER --tiny     # on any machine: whether everything runs, small and short

In a project's folder, or in template/. FOLDER with the data holds cifar10-images.zip, CIFAR-10 as
train/<class>/*.jpg and test/<class>/*.jpg; proofs that need it are left out without it. Nothing is downloaded.
OUT/proofs.jsonl gets a line for each proof; the same command again goes on with those that have none. Options: --only
NAME,NAME; --list. It needs torch, pytorch-lightning, timm, omegaconf, safetensors, matplotlib, rich and scikit-learn;
int8 (benchmarks/gpu_inference.py) compares what there is of ONNX Runtime's GPU build, TensorRT and Torch-TensorRT.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from safetensors.numpy import load_file

sys.path.insert(0, os.getcwd())  # the project's folder

PLAIN = Path(__file__).with_name("plain_lightning.py")
MEMORY = Path(__file__).with_name("gpu_memory.py")
INFERENCE = Path(__file__).with_name("gpu_inference.py")
DEFAULTS = Path(__file__).with_name("gpu_defaults.py")
QUIET = ["framework=lightning", "tracker=none"]
BF16 = "trainer.precision=bf16-mixed"
SCENE_TASKS = ("detection", "segmentation", "instance_segmentation")
# the check of GPU memory before a run, on a machine that has not seen this configuration and once more
ESTIMATE = """
import json, sys, time
from src.kit.config import load_config
from src.kit.memory import fit_to_machine
from src.kit.training import Experiment, load_trainer
import torch
cfg = load_config(sys.argv[1:])
load_trainer(cfg)  # its imports are the training's
torch.cuda.is_available() and torch.cuda.init()
found = {}
for name in ("first_s", "again_s"):
    experiment = Experiment(cfg)
    experiment.split("train")
    started = time.perf_counter()
    fit_to_machine(experiment)
    found[name] = time.perf_counter() - started
print(json.dumps(found))
"""
# timm's network, optimizer and precision as a script of a few lines uses them, on a batch that stays on the device
TIMM = """
import sys, time, timm, torch
name, size, batch, steps = sys.argv[1], *map(int, sys.argv[2:])
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cudnn.benchmark = True
network = timm.create_model(name, num_classes=10).to(device, memory_format=torch.channels_last)
optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
labels = torch.randint(10, (batch,), device=device)
for step in range(steps + 5):
    if step == 5:
        torch.cuda.is_available() and torch.cuda.synchronize()
        started = time.perf_counter()
    with torch.autocast(device, torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.cuda.is_available() and torch.cuda.synchronize()
print(1000 * (time.perf_counter() - started) / steps)
"""


class Cut(Exception):
    """The time is up."""


class Proofs:
    """What each proof runs: its figures by name."""

    def __init__(self, data: Path | None, out: Path, deadline: float, tiny: bool) -> None:
        self.out, self.deadline, self.tiny = out, deadline, tiny
        self.photos = unpack(data / "cifar10-images.zip", out / "cifar10") if data else None

    def run(self, *command: Any, variables: Mapping[str, str] | None = None) -> str:
        """Standard output of a Python command; raises Cut when the time is up, RuntimeError with its last words."""
        paths = filter(None, (os.getcwd(), os.environ.get("PYTHONPATH")))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(variables or {})}
        words = [sys.executable, *map(str, command)]
        try:
            left = self.deadline - time.time()
            done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=left)
        except subprocess.TimeoutExpired:
            raise Cut from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["?"]
            raise RuntimeError(f"{' '.join(words[1:3])} gave {done.returncode}: {said[-1][:300]}")
        return done.stdout

    def train(self, folder: str, *keys: str) -> Path:
        """Train in a new process; the run's folder."""
        place = self.out / "runs" / folder
        self.run("scripts/train.py", *QUIET, f"output_dir={place}", *keys)
        return max(place.glob("*/run.json"), key=lambda path: path.stat().st_mtime).parent

    def compare(self, *keys: str) -> dict[str, float]:
        """What scripts/benchmark.py measures of a training beside a loop by hand on the same data."""
        seconds, rounds = (0.2, 1) if self.tiny else (2, 3)
        options = ["--json", "--seconds", seconds, "--rounds", rounds, "framework=lightning"]
        started = time.perf_counter()
        found = json.loads(self.run("scripts/benchmark.py", *options, *keys))
        ours = found["sides"]["ours"]
        figures = {"step_ms": ours["step_ms"], "samples_per_s": ours["samples_per_s"], "mfu": ours["mfu"]}
        figures |= {f"ours_{side}": 1 / found["ratios"][f"ours / {side}"] for side in ("by_hand", "synthetic")}
        return figures | {"asked_s": seconds * rounds * 3, "wall_s": time.perf_counter() - started}

    def of_photos(self, size: int, batch: int) -> list[str]:
        """Keys of CIFAR-10's photos, or of the digits in a tiny proof."""
        if self.tiny:
            return ["data=digits", "data.batch_size=64"]
        if size == 32:
            return [*self.records(), f"data.batch_size={batch}"]
        return ["data=image_folder", f"data.root={self.photos}", f"data.image_size={size}", f"data.batch_size={batch}"]

    def start(self) -> dict[str, float]:
        """Seconds of train.py on the digits and of a plain Lightning script that does the same, in turns."""
        ours, plain = [], []
        for turn in range(1 if self.tiny else 2):
            for times, work in (
                (ours, partial(self.train, f"start-{turn}", "data=digits")),
                (plain, partial(self.run, PLAIN, "digits")),
            ):
                started = time.perf_counter()
                work()
                times.append(time.perf_counter() - started)
        return {"ours_s": min(ours), "plain_s": min(plain), "ratio": min(ours) / min(plain)}

    def cifar10(self) -> dict[str, float]:
        """ResNet-18 on CIFAR-10 by the ordinary command: accuracy and seconds."""
        started = time.perf_counter()
        keys = ["model=resnet18", "optimizer=sgd", "optimizer.lr=0.1", "scheduler=one_cycle", "deterministic=false"]
        keys += ["trainer.precision=auto", f"trainer.max_epochs={1 if self.tiny else 12}"]
        run = self.train("cifar10", *keys, *self.of_photos(32, 512))
        score = json.loads((run / "evaluation-test.json").read_text("utf-8"))["accuracy"]
        trained = sum(row["epoch_s"] for row in read_lines(run / "metrics.jsonl"))
        return {"accuracy": score, "epochs_s": trained, "wall_s": time.perf_counter() - started}

    def cifar10_fast(self) -> dict[str, float]:
        """The experiment on all of CIFAR-10: accuracy, with a mirrored view too, seconds of the epochs and in all.

        Warm epochs are eight times the median one: the first also loads kernels and tries them.
        """
        scores, views, epochs, warm, walls = [], [], [], [], []
        keys = ["experiment=cifar10_fast", *self.records()]
        keys += ["model.width=8", "data.batch_size=64", "data.augment=basic"] if self.tiny else []
        mirrored = [] if self.tiny else ["--tta"]  # digits of 8 pixels have one view
        for seed in range(1, 2 if self.tiny else 4):
            started = time.perf_counter()
            run = self.train("cifar10_fast", *keys, f"seed={seed}")
            walls.append(time.perf_counter() - started)
            scores.append(json.loads((run / "evaluation-test.json").read_text("utf-8"))["accuracy"])
            views.append(float(re.findall(r"accuracy +([.0-9]+)", self.run("scripts/test.py", run, *mirrored))[0]))
            seconds = [row["epoch_s"] for row in read_lines(run / "metrics.jsonl")]
            epochs.append(sum(seconds))
            warm.append(len(seconds) * median(seconds))
        found = {"accuracy": mean(scores), "accuracy_two_views": mean(views), "epochs_s": min(epochs)}
        return found | {"warm_epochs_s": min(warm), "wall_s": min(walls)}

    def records(self) -> list[str]:
        """Keys of CIFAR-10 in its publisher's binary files, written from the photos once."""
        if not self.photos:
            return ["data=digits"]
        folder = self.out / "cifar10_binary" / "cifar-10-batches-bin"
        if not folder.is_dir():
            from src.kit.loading import FileImages, read_all, scan_classes

            folder.mkdir(parents=True)
            files = {"test": ["test_batch"], "train": [f"data_batch_{number}" for number in range(1, 6)]}
            for part, names in files.items():
                classes = scan_classes(self.photos / part).values()
                found = [(path, label) for label, paths in enumerate(classes) for path in paths]
                pixels = read_all(FileImages([path for path, _ in found], 32), 0, None).reshape(len(found), -1)
                labels = np.array([[label] for _, label in found], np.uint8)
                for name, rows in zip(names, np.array_split(np.hstack([labels, pixels]), len(names)), strict=True):
                    rows.tofile(folder / f"{name}.bin")
        return ["data=cifar10", f"data.root={folder.parent}", "data.val_fraction=0.02"]

    def defaults(self) -> dict[str, float]:
        """A step without each setting over a step with all of them."""
        sizes = {"resnet18": ["model=resnet18", *self.of_photos(32, 512)]}
        sizes["resnet50"] = ["model=resnet50", *self.of_photos(32, 64), "data.image_size=224"]
        options = ["--rounds", *((1, "--seconds", 0.05) if self.tiny else (3, "--seconds", 0.3))]
        found: dict[str, float] = {}
        for name, keys in list(sizes.items())[: 1 if self.tiny else 2]:
            keys = [*(["model=small_cnn"] if self.tiny else keys[:1]), *keys[1:]]
            measured = json.loads(self.run(DEFAULTS, *options, *keys))
            found |= {f"{name} {side}": value for side, value in measured.items()}
        return found

    def estimate(self) -> dict[str, float]:
        """Seconds that the check of GPU memory adds to a run: the first of its configuration, and the next."""
        sizes = {"digits": ["data=digits"], "yolov10n": ["task=detection", f"data.root={self.scenes()}"]}
        if not self.tiny:
            sizes["resnet50"] = ["model=resnet50", *self.of_photos(32, 64), "data.image_size=224"]
        kept = {"XDG_CACHE_HOME": str(self.out / f"cache-{os.getpid()}")}
        found: dict[str, float] = {}
        for name, keys in sizes.items():
            measured = json.loads(self.run("-c", ESTIMATE, *QUIET, *keys, variables=kept))
            found |= {f"{name}_{key}": value for key, value in measured.items()}
        return found

    def scene_epochs(self) -> dict[str, float]:
        """An epoch of each network for scenes: seconds of the epoch and of the whole command, evaluation included."""
        found = {}
        for task in SCENE_TASKS[: 1 if self.tiny else None]:
            started = time.perf_counter()
            keys = [f"task={task}", f"data.root={self.scenes()}", "trainer.max_epochs=1", "deterministic=false"]
            keys += ["data.image_size=64", "trainer.limit_train_batches=2"] if self.tiny else [BF16]
            run = self.train(task, *keys)
            found[f"{task}_wall_s"] = time.perf_counter() - started
            found[f"{task}_epoch_s"] = read_lines(run / "metrics.jsonl")[0]["epoch_s"]
        return found

    def scenes(self) -> Path:
        """The folder of the digit scenes, which are drawn once."""
        self.run("scripts/download.py", "data=digit_scenes", f"data.root={self.out / 'digit_scenes'}")
        return self.out / "digit_scenes"

    def overhead(self) -> dict[str, float]:
        """A step over that of a loop by hand, at three sizes."""
        sizes = {
            "digits": ["data=digits"],
            "small_cnn": ["model=small_cnn", *self.of_photos(32, 128)],
            "resnet18": ["model=resnet18", *self.of_photos(32, 512)],
        }
        found = {name: self.compare(*keys) for name, keys in list(sizes.items())[: 1 if self.tiny else 3]}
        return {f"{name}_{key}": found[name][key] for name in found for key in COMPARED}

    def repeat(self) -> dict[str, bool]:
        """Whether the same seed gives the same weights, and a killed and resumed run too, bit for bit."""
        keys = ["data=digits", "deterministic=true", "trainer.max_epochs=8"]
        first, second = (self.train(f"repeat-{number}", *keys) for number in range(2))
        place = self.out / "runs" / "killed"
        command = ["scripts/train.py", *QUIET, f"output_dir={place}", *keys]
        with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                if "epoch 2/8" in line:
                    process.kill()
        killed = max(place.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime).parent
        if len(read_lines(killed / "metrics.jsonl")) == 8:
            raise RuntimeError("The run had ended before it was killed: raise its epochs.")
        self.run("scripts/train.py", "--resume", killed)
        weights = [last_weights(run) for run in (first, second, killed)]
        return {"same_seed_equal": weights[0] == weights[1], "resumed_equal": weights[0] == weights[2]}

    def repeat_tasks(self) -> dict[str, bool]:
        """Whether a dozen batches of each kind of network end with the same weights twice, bit for bit."""
        scenes = [] if self.tiny else [f"data.root={self.scenes()}"]
        kinds = {
            "small_cnn": ["data=digits"],
            "speed_net": ["experiment=cifar10_fast", *self.records()],
            "resnet18": ["model=resnet18", BF16, *self.of_photos(32, 512)],
            **{task: [f"task={task}", *scenes] for task in SCENE_TASKS},
        }
        short = ["deterministic=true", "trainer.max_epochs=1", "trainer.limit_train_batches=12"]
        short += ["trainer.limit_val_batches=2", "trainer.limit_test_batches=1"]
        found = {}
        for name, keys in list(kinds.items())[: 1 if self.tiny else None]:
            with ThreadPoolExecutor(2) as pool:  # side by side, as most of each is its start
                waiting = [pool.submit(self.train, f"{turn}-{name}", *keys, *short) for turn in ("one", "two")]
            runs = [each.result() for each in waiting]
            found[f"{name}_equal"] = last_weights(runs[0]) == last_weights(runs[1])
        return found

    def memory(self) -> dict[str, Any]:
        """Rows of benchmarks/gpu_memory.py side by side, and the summary of their errors."""
        file, limit = self.out / "gpu_memory.jsonl", 1 if self.tiny else 24
        options = ["--framework", "lightning", "--limit", limit, "--out", file]
        if self.tiny:
            return {"rows": len(self.run(MEMORY, *options, "--dry-run").splitlines())}
        said = self.run(MEMORY, *options, "--jobs", 4)
        return {"rows": len(said.splitlines()), "summary": self.run(MEMORY, "--out", file, "--summary")}

    def mfu(self) -> dict[str, float]:
        """ResNet-50 at 224 pixels in bf16: our step, a loop by hand, and timm's training step."""
        size, batch = (8, 8) if self.tiny else (224, 256)
        model = "small_cnn" if self.tiny else "resnet50"
        keys = [f"model={model}", BF16, "deterministic=false", "data.cache=none"]
        found = self.compare(*keys, *self.of_photos(size, batch))
        name, steps = ("test_resnet", 2) if self.tiny else ("resnet50", 20)
        return found | {"timm_step_ms": float(self.run("-c", TIMM, name, max(size, 32), batch, steps))}

    def loading(self) -> dict[str, float]:
        """JPEG photos a second on all cores, beside Pillow with a DataLoader."""
        rounds = ["--seconds", 0.2, "--rounds", 1] if self.tiny else ["--images", 20000]
        found = json.loads(self.run("scripts/benchmark_data.py", "--json", *rounds, *QUIET, *self.of_photos(224, 128)))
        return found["rates"] | {"ours_plain": found["ratios"]["ours / plain"]}

    def tasks(self) -> dict[str, float]:
        """A step of each other task on digit scenes."""
        root = f"data.root={self.scenes()}"
        tasks = SCENE_TASKS[: 1 if self.tiny else None]
        small = ["data.image_size=64", "data.batch_size=4"] if self.tiny else [BF16]
        found = {task: self.compare(f"task={task}", root, "deterministic=false", *small) for task in tasks}
        return {f"{task}_{key}": found[task][key] for task in tasks for key in COMPARED}

    def fsdp(self) -> dict[str, float]:
        """FSDP2 on one device trains the weights that the plain run trains."""
        keys = ["data=digits", "trainer.max_epochs=2", "trainer.devices=1"]
        runs = [self.train(f"fsdp-{name}", *keys, f"trainer.strategy={name}") for name in ("auto", "fsdp")]
        losses = [read_lines(run / "metrics.jsonl")[-1]["val/loss"] for run in runs]
        return {"val_loss": losses[0], "difference": abs(losses[0] - losses[1])}

    def int8(self) -> dict[str, Any]:
        """A trained ResNet-50 at 224 pixels in each runtime that is installed, in floating point and INT8."""
        model = "small_cnn" if self.tiny else "resnet50"
        keys = [f"model={model}", "deterministic=false", "trainer.max_epochs=2", *self.of_photos(224, 256)]
        run = self.train("int8", *keys, *([] if self.tiny else [BF16]))
        small = ["--batch", 16, "--seconds", 0.02, "--no-compile"] if self.tiny else []
        found: dict[str, Any] = json.loads(self.run(INFERENCE, run, *small))
        return found


COMPARED = ("step_ms", "ours_by_hand", "ours_synthetic", "wall_s")
# by what they tell
ORDER = ("start", "cifar10_fast", "overhead", "repeat", "repeat_tasks", "defaults", "memory", "estimate", "mfu")
ORDER += ("scene_epochs", "loading", "tasks", "cifar10", "fsdp", "int8")
OF_PHOTOS = ("cifar10_fast", "repeat_tasks", "cifar10", "overhead", "defaults", "estimate", "mfu", "loading", "int8")


def unpack(archive: Path, folder: Path) -> Path:
    """The photos of an archive, unpacked once."""
    if not folder.is_dir():
        partial_folder = folder.with_name(f".{folder.name}.partial")
        with zipfile.ZipFile(archive) as file:
            file.extractall(partial_folder)  # zipfile leaves out drives, roots and ..
        partial_folder.rename(folder)
    return folder.resolve()


def last_weights(run: Path) -> dict[str, bytes]:
    """The tensors of a run's last checkpoint."""
    checkpoints = sorted((run / "checkpoints").glob("epoch=*"), key=lambda path: int(re.findall(r"\d+", path.name)[0]))
    return {name: array.tobytes() for name, array in load_file(checkpoints[-1] / "model.safetensors").items()}


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON, none if there is no file, without one that was cut off."""
    rows = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def prove(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A proof's line: its figures, or what went wrong."""
    started = time.perf_counter()
    try:
        line: dict[str, Any] = {"proof": name, "figures": work()}
    except Cut:
        line = {"proof": name, "error": "cut: the time was up"}
    except (RuntimeError, ValueError, KeyError, OSError) as error:  # the other proofs still run
        line = {"proof": name, "error": " ".join(str(error).split())[:400]}
    return line | {"seconds": round(time.perf_counter() - started, 1)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table."""
    lines = ["| proof | s | measured |", "|---|---:|---|"]
    for row in rows:
        figures = row.get("figures", {})
        shown = [f"{key} {each:.4g}" if isinstance(each, float) else f"{key} {each}" for key, each in figures.items()]
        said = row.get("error") or ", ".join(shown)
        lines.append(f"| {row['proof']} | {row['seconds']} | {' '.join(str(said).split())} |")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run what has no figures yet until the time is up; 1 if a proof failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_proof"))
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--only", default=",".join(ORDER))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(argv)
    wanted = options.only.split(",")
    if options.list or (unknown := [name for name in wanted if name not in ORDER]):
        print("\n".join(ORDER) if options.list else f"There is no {', '.join(unknown)}. Available: {', '.join(ORDER)}.")
        return 0 if options.list else 1
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "proofs.jsonl"
    deadline = time.time() + 60 * options.minutes
    proofs = Proofs(options.data, options.out.resolve(), deadline, options.tiny)
    kept = read_lines(file)
    file.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")  # a line that was cut off is gone
    done = {row["proof"] for row in kept if "figures" in row}
    for name in [name for name in wanted if name not in done and time.time() < deadline]:
        if name in OF_PHOTOS and not (proofs.photos or options.tiny):
            continue
        line = prove(name, getattr(proofs, name))
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    newest = {row["proof"]: row for row in read_lines(file)}
    print(table([newest[name] for name in ORDER if name in newest]))
    return 1 if any("error" in newest[name] for name in wanted if name in newest) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
