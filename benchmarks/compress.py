"""What `scripts/compress.py` gains and costs: run in a project, `python .../compress.py lightning [CASE ...]`.

Each case trains a network from several seeds, compresses each run in several ways and trains it on. Means over the
seeds, scores of the test split. The case `timing` times networks with random weights.
"""

import json
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path.cwd()))

from src.kit.compression import compress_command, find_rules, prune_channels, prune_weights
from src.kit.config import load_config
from src.kit.training import build_model, train
from src.kit.training.exports import export_network

# case -> seeds, keys, ways to compress, and keys of a network as small that is trained alone, as long in all
CASES: dict[str, tuple[int, list[str], tuple[str, ...], list[str]]] = {
    "digits": (
        5,
        ["model=small_cnn", "data=digits", "trainer.max_epochs=30"],
        ("--channels 0.5 --epochs 15", "--sparsity 0.8 --epochs 15", "--pattern 2:4 --epochs 15"),
        ["model.width=6", "trainer.max_epochs=45"],
    ),
    "resnet": (
        5,
        ["model=resnet18", "data=digits", "trainer.max_epochs=8"],
        ("--channels 0.55 --epochs 8", "--sparsity 0.8 --epochs 2", "--pattern 2:4 --epochs 2"),
        [],
    ),
    "mnist": (
        1,
        [
            *("model=resnet18", "model.stem=imagenet", "data=mnist", "trainer.max_epochs=2"),
            *("data.batch_size=128", "trainer.limit_train_batches=100"),
        ],
        ("--channels 0.55 --epochs 1",),
        [],
    ),
}


def main(framework: str, *cases: str) -> None:
    """Print one row for each way of compressing."""
    for case in cases or (*CASES, "timing"):
        if case == "timing":
            print("\n".join(timing(framework)), flush=True)
            continue
        seeds, keys, ways, alone = CASES[case]
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        small = []
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
                common = [*keys, f"framework={framework}", f"seed={seed}", f"output_dir={folder}", "tracker=none"]
                run = train(load_config(common))
                if alone:
                    small.append(accuracy(train(load_config([*common, *alone])).path))
                for way in ways:
                    words = way.split()
                    pairs = zip(words[::2], words[1::2], strict=True)
                    options = {name[2:]: word if ":" in word else json.loads(word) for name, word in pairs}
                    done = compress_command([str(run.path)], **options)
                    before, cut, after = json.loads((done / "compression.json").read_text("utf-8"))["rows"]
                    scores = {"whole": accuracy(run.path), "cut": cut["score"], "trained": accuracy(done)}
                    runs[way].append({"before": before, "after": after, **scores})
        for way, results in runs.items():
            print(row(case, framework, way, results, small if way.startswith("--channels") else []), flush=True)


def timing(framework: str) -> list[str]:
    """Processor time of one image of 224 pixels through ResNet-18: median of 40 in random turns, in milliseconds."""
    cfg = load_config(["model=resnet18", f"framework={framework}"])
    kit = import_module(f"src.kit.{framework}")
    whole = kit.weights_to_numpy(build_model(cfg, 1000, 3, 224))
    cut = prune_channels(whole, find_rules(cfg), 0.5)
    dense = {name: array.shape for name, array in whole.items() if array.shape != cut[name].shape}
    networks = {
        "whole": whole,
        "--channels 0.5": cut,
        "--sparsity 0.8": prune_weights(whole, 0.8),
        "--pattern 2:4": prune_weights(whole, 0.5, "2:4"),
    }
    order = np.random.default_rng(0)
    image = order.standard_normal((1, 3, 224, 224), dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (way, arrays) in enumerate(networks.items()):
            network = build_model(cfg, 1000, 3, 224)
            kit.weights_from_numpy(network, arrays, {"compression": json.dumps({"dense": dense})})
            (target := Path(folder) / str(number)).mkdir()
            export_network(network, framework, (3, 224, 224), target)
            sessions[way] = onnxruntime.InferenceSession(target / "model.onnx", options)
        times: dict[str, list[float]] = {way: [] for way in networks}
        for _ in range(40):
            for way in order.permutation(list(networks)):
                start = time.thread_time()  # of the processor: other work on the machine does not count
                sessions[way].run(None, {"input": image})
                times[way].append(1000 * (time.thread_time() - start))
    median = {way: statistics.median(taken) for way, taken in times.items()}
    sizes = {way: sum(each.size for each in networks[way].values()) / 1e6 for way in networks}
    ratio = {way: median[way] / median["whole"] for way in networks}
    return [f"| {way} | {sizes[way]:.1f} M | {median[way]:.1f} | {ratio[way]:.2f} |" for way in networks]


def accuracy(run: Path) -> float:
    """On the test split."""
    return float(json.loads((run / "evaluation-test.json").read_text("utf-8"))["accuracy"])


def row(case: str, framework: str, way: str, results: list[dict[str, Any]], small: list[float]) -> str:
    """A line of the table."""
    ratios = {
        name: statistics.mean(each["after"][name] / each["before"][name] for each in results)
        for name in ("parameters", "operations", "zipped")
    }
    whole, cut, trained = (statistics.mean(each[name] for each in results) for name in ("whole", "cut", "trained"))
    alone = f"{statistics.mean(small):.4f}" if small else "-"
    sizes = " | ".join(f"{ratios[name]:.2f}" for name in ratios)
    worst = min(each["trained"] - each["whole"] for each in results)
    return (
        f"| {case}, {framework} | {len(results)} | `{way}` | {sizes} | {whole:.4f} | {cut:.4f} | {trained:.4f} "
        f"| {100 * worst:+.2f} | {alone} |"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
