"""What each setting that the project makes for speed on a GPU gains: a training step without it over one with all.

    python ../benchmarks/gpu_defaults.py model=resnet18 data.batch_size=512     # in a project's folder; a line of JSON

Steps of the project's network, loss and optimizer on one made-up batch that stays on the device, without Lightning.
All settings: bf16 where the device has it, TF32, channels last, cuDNN's trials, fused optimizers. The sides take turns;
medians of the rounds' ratios count. Options: --rounds N (5), --seconds S (0.5, each side in each round), --compile.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path.cwd()))

import torch

from src.kit.config import load_config
from src.kit.lightning.benchmark import Trainer, wait
from src.kit.training import Experiment

WITHOUT = ("bf16", "tf32", "channels_last", "cudnn_trials", "fused", "nondeterminism")


class Side:
    """A training with all settings but `without`."""

    def __init__(self, split: Any, keys: list[str], without: str = "", compiled: bool = False) -> None:
        self.without = without
        precision = "32-true" if without in ("bf16", "float32 without tf32") else "auto"
        cfg = load_config([*keys, f"trainer.precision={precision}", f"trainer.compile={compiled}"])
        self.set_flags()
        self.trainer = Trainer(cfg, split)
        if without != "channels_last":
            self.trainer.network.to(memory_format=torch.channels_last)
        if without == "fused":
            for group in self.trainer.optimizer.param_groups:
                group["fused"] = None  # PyTorch's choice: one kernel for many tensors on a GPU
        self.batch = self.trainer.synthetic()
        self.run(5)

    def set_flags(self) -> None:
        """Set what holds for the whole process."""
        tf32 = not self.without.endswith("tf32")
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = self.without not in ("cudnn_trials", "nondeterminism")
        torch.set_deterministic_debug_mode("warn" if self.without == "nondeterminism" else "default")
        torch.utils.deterministic.fill_uninitialized_memory = False  # as `deterministic=true` sets it

    def run(self, steps: int) -> float:
        """Seconds of a step."""
        self.set_flags()
        wait(self.trainer.cfg)
        started = time.perf_counter()
        for _ in range(steps):
            self.trainer.step(self.batch)
        wait(self.trainer.cfg)
        return (time.perf_counter() - started) / steps


def main(argv: list[str]) -> None:
    """Measure all sides in turns and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--compile", action="store_true")
    options, keys = parser.parse_known_args(argv)
    keys = ["framework=lightning", "tracker=none", "deterministic=false", *keys]
    split = Experiment(load_config(keys)).split("train")
    sides = {"all": Side(split, keys)} | {f"without {name}": Side(split, keys, name) for name in WITHOUT}
    sides["float32 without tf32"] = Side(split, keys, "float32 without tf32")
    started = time.perf_counter()
    if options.compile:
        sides["compiled"] = Side(split, keys, compiled=True)
    compile_s = time.perf_counter() - started
    steps = max(2, round(options.seconds / sides["all"].run(3)))
    rounds = [{name: side.run(steps) for name, side in sides.items()} for _ in range(options.rounds)]
    found: dict[str, Any] = {"step_ms": 1000 * median(each["all"] for each in rounds)}
    found |= {name: median(each[name] / each["all"] for each in rounds) for name in sides if name != "all"}
    print(json.dumps(found | ({"compile_s": compile_s} if options.compile else {})))


if __name__ == "__main__":
    main(sys.argv[1:])
