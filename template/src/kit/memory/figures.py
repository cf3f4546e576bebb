"""The figures of one estimate, in MiB."""

from dataclasses import asdict, dataclass
from typing import Any

from src.kit.memory.allocators import MIB
from src.kit.memory.replay import Peak

# Of what the allocator takes: of 231 trainings that others measured (benchmarks/gpu_memory_timm.py), 1 % took more.
MARGIN = 0.18


@dataclass(frozen=True)
class Estimate:
    """MiB of one GPU at the moment when the framework's tensors take the most.

    `allocated` are the tensors, and comes beside `max_memory_allocated`; `reserved` what the allocator took from the
    driver for them; `total` the process as `nvidia-smi` shows it; `needed` the total with a margin.
    """

    batch_size: int
    parameters: float
    gradients: float
    optimizer: float
    activations: float
    workspace: float
    data: float
    fragmentation: float
    context: float
    allocated: float
    reserved: float
    total: float
    needed: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


def summarise(batch: int, peak: Peak, context: float) -> Estimate:
    """Bytes as MiB, with what lies between them."""
    kinds = {name: peak.kinds.get(name, 0) / MIB for name in ("parameters", "gradients", "optimizer", "activations")}
    rest = {name: peak.kinds.get(name, 0) / MIB for name in ("workspace", "data")}
    allocated, reserved = peak.allocated / MIB, peak.reserved / MIB
    total = reserved + context
    sums = {"allocated": allocated, "reserved": reserved, "total": total, "needed": total + MARGIN * reserved}
    return Estimate(batch, **kinds, **rest, fragmentation=reserved - allocated, context=context, **sums)
