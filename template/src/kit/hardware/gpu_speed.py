"""What GPUs can do at most, by NVIDIA's own figures, and how busy one is."""

import os
import re
import threading
import time
from collections.abc import Sequence

from src.kit.hardware.machine import Machine

# 10^12 operations a second of the tensor cores without sparsity: (fp16 and bf16 with fp32 sums, TF32). TF32 stands for
# trainer.precision=32-true, since both frameworks let cuDNN's convolutions use it; older GPUs have plain fp32 there.
PEAKS = (
    (r"B200$", 2250, 1100),  # HGX B200 datasheet
    (r"H100 NVL", 835, 417),  # H100 datasheet, which gives twice as much: with sparsity
    (r"H100 PCIe", 756, 378),  # the same
    (r"H100 80GB|H200$", 989, 494),  # the same, of SXM modules; H200 datasheet
    (r"A100|A800", 312, 156),  # A100 datasheet
    (r"A30$", 165, 82),  # A30 datasheet
    (r"A40$", 149.7, 74.8),  # A40 datasheet
    (r"A10$", 125, 62.5),  # A10 datasheet
    (r"L40S$", 362, 183),  # L40S datasheet
    (r"L40$", 181, 90.5),  # L40 datasheet
    (r"L4$", 121, 60),  # L4 datasheet, which gives twice as much: with sparsity
    (r"RTX 5090$", 209.5, 104.8),  # RTX Blackwell whitepaper
    (r"RTX 4090$", 165.2, 82.6),  # Ada whitepaper
    (r"RTX 4080$", 97.5, 48.7),  # the same
    (r"RTX 3090$", 71, 35.6),  # GA102 whitepaper
    (r"V100-SXM2", 125, 15.7),  # V100 datasheet
    (r"V100-PCIE", 112, 14),  # the same
    (r"T4$", 65, 8.1),  # T4 datasheet
)
WITHOUT_BF16 = r"V100|T4"
INTERVAL_S = 0.25  # nvidia-smi tells the mean of the last 0.17 to 1 s


def peak_flops(gpu: str, precision: str) -> float | None:
    """Operations a second at `trainer.precision`, None for a GPU that is not known or a part of one (MIG)."""
    found = next((row for row in PEAKS if re.search(rf"\b{row[0]}", gpu)), None)
    if found is None or "MIG" in gpu or (precision == "bf16-mixed" and re.search(WITHOUT_BF16, gpu)):
        return None
    return 1e12 * (found[2] if precision == "32-true" else found[1])


class Utilisation:
    """Asks `nvidia-smi` again and again, beside the work, what share of the time a GPU is computing."""

    def __init__(self, asked: bool = True, machine: Machine | None = None) -> None:
        """`asked=False` asks nothing, where there is no GPU."""
        self.asked, self.machine = asked, machine or Machine()
        self.samples: list[tuple[float, float]] = []  # (time.perf_counter, per cent)
        self.stop, self.thread = threading.Event(), threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
        command = ["nvidia-smi", f"--id={chosen}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self.stop.wait(INTERVAL_S):
            answer = self.machine.run(command)
            if answer and answer.output.strip().isdigit():  # a part of a GPU (MIG) answers [N/A]
                self.samples.append((time.perf_counter(), float(answer.output)))

    def __enter__(self) -> "Utilisation":
        if self.asked:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        if self.asked:
            self.thread.join()

    def mean(self, windows: Sequence[tuple[float, float]]) -> float | None:
        """Per cent within windows of `time.perf_counter`; None where it was never told."""
        inside = [value for at, value in self.samples if any(begin <= at <= end for begin, end in windows)]
        return sum(inside) / len(inside) if inside else None
