"""How much GPU memory a training will take, and the largest batch that fits each common GPU.

Exact for parameters, gradients, optimizer state and what autograd keeps, compared with the frameworks' CPU allocators
by tests/internals/test_memory_*. Not measured on a GPU yet: scratch of cuDNN and cuBLAS, the CUDA context, and so the
totals and their margin.
"""

from collections.abc import Callable, Sequence

from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.loading import DEVICE_SHARE
from src.kit.memory.allocators import MIB
from src.kit.memory.examples import make_targets
from src.kit.memory.figures import Estimate, summarise
from src.kit.memory.replay import Peak, line, replay
from src.kit.memory.shape import Shape, find_shape
from src.kit.memory.trace import Growth, Trace
from src.kit.memory.workspace import CONTEXT_MIB, cublas
from src.kit.training import load_part

TRACES = {"lightning": "src.kit.lightning.memory_trace:traces", "paddle": "src.kit.paddle.memory_trace:traces"}
# what nvidia-smi reports of cards sold with so many GB: RTX 4060, 4070, 4080, 4090, A100, H100, H200
GPUS = {8: 8188, 12: 12282, 16: 16376, 24: 24564, 40: 40536, 80: 81559, 141: 143771}
PREFETCHED = {"lightning": 0, "paddle": 2}  # batches on the GPU besides the one in training
MOST = 1 << 16
# that are traced: PyTorch's batch normalisation refuses a single value, and what Paddle must compute takes its time
BATCHES = {"lightning": (2, 4), "paddle": (1, 2)}
LARGER = (4, 8)  # where the peak is on the line and not every block: other things than activations weigh less there


class NotEstimated(UserError):
    """The network does what can only be found out by running it."""


class Estimator:
    """The configured training at any batch size: two traces are made once."""

    def __init__(
        self, cfg: DictConfig, shape: Shape | None = None, capability: str | None = None, memory_mib: float = GPUS[8]
    ) -> None:
        """The GPU has compute capability `capability` (None: the one that takes the most) and `memory_mib` MiB.

        Raises:
            NotEstimated: a network that does what can only be found out by running it.
        """
        self.cfg, self.shape = cfg, shape or find_shape(cfg)
        make: Callable[[DictConfig, Shape, Sequence[int]], list[Trace]] = load_part(TRACES, cfg.framework)
        try:
            batches = BATCHES[cfg.framework]
            self.growth = Growth(batches, make(cfg, self.shape, batches))
            if not self.growth.same:
                self.growth = Growth(LARGER, [self.growth.traces[1], *make(cfg, self.shape, LARGER[1:])])
        except UserError:
            raise
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:  # it looks at the pixels
            said = " ".join(str(error).split())[:200]
            raise NotEstimated(f"The GPU memory of model={cfg.model.name} cannot be estimated: {said}.") from error
        self.lasting = {"workspace": cublas(cfg, capability), "data": kept_images(cfg, self.shape, memory_mib)}
        images = 4 * self.shape.channels * self.shape.image_size**2
        self.sample_bytes = images + sum(array.nbytes for array in make_targets(cfg.task, self.shape, 1))
        self.found: dict[int, Estimate] = {}

    @property
    def notes(self) -> list[str]:
        """What the estimate takes for granted, in sentences."""
        said = [f"Each image is taken to have {self.shape.objects} objects."] * bool(self.shape.objects)
        if not self.growth.same:
            said += [f"Batches of {LARGER[0]} and {LARGER[1]} were traced; others are taken to lie on a straight line."]
        if self.cfg.framework == "paddle" and self.cfg.loss.name == "network":
            said += ["Activations are those of steps on this processor, in 32 bits; half precision takes less."]
        return said

    def at(self, batch: int) -> Estimate:
        """The estimate at a batch size."""
        if batch not in self.found:
            if self.growth.same:
                peak = self.replay(self.growth.at(batch), batch)
            else:
                ends = [self.replay(*pair) for pair in zip(self.growth.traces, LARGER, strict=True)]
                peak = line(LARGER, ends, batch)
            self.found[batch] = summarise(batch, peak, CONTEXT_MIB[self.cfg.framework])
        return self.found[batch]

    def replay(self, trace: Trace, batch: int) -> Peak:
        """Run a trace with a batch, besides what lies on the GPU all the time."""
        lasting = [*self.lasting.items(), ("data", PREFETCHED[self.cfg.framework] * batch * self.sample_bytes)]
        return replay(begin_with(trace, lasting), self.cfg.framework)

    def largest(self, memory_mib: float, most: int = MOST) -> int:
        """The largest batch that fits, to 3 %, and 0 where none does."""
        low, high = 0, 1
        while high <= most and self.at(high).needed <= memory_mib:
            low, high = high, 2 * high
        high = min(high, most + 1)
        while high - low > max(1, low // 32):
            middle = (low + high) // 2
            low, high = (middle, high) if self.at(middle).needed <= memory_mib else (low, middle)
        return low


def kept_images(cfg: DictConfig, shape: Shape, memory_mib: float) -> int:
    """Bytes of the images that `data.cache` keeps on a GPU of this size, uint8 with the margin that shifts need."""
    keys = cfg.data
    if cfg.task != "classification":  # other data are kept in RAM
        return 0
    movable = keys.augment in ("none", "basic") and not (keys.mixup_alpha or keys.cutmix_alpha or keys.sizes)
    side = shape.image_size + (2 * max(1, shape.image_size // 8) if keys.augment == "basic" else 0)
    size = shape.images * shape.channels * side * side
    fits = keys.cache == "auto" and movable and size <= DEVICE_SHARE * memory_mib * MIB
    return size if keys.cache == "device" or fits else 0


def begin_with(trace: Trace, lasting: list[tuple[str, int]]) -> Trace:
    """The trace with blocks that live throughout, before everything else."""
    first = len(trace.kinds)
    events = tuple((first + number, size) for number, (_, size) in enumerate(lasting))
    kinds = {first + number: kind for number, (kind, _) in enumerate(lasting)}
    return Trace(events + trace.events, {**trace.kinds, **kinds})


def estimate(cfg: DictConfig, shape: Shape | None = None, capability: str | None = None) -> Estimate:
    """The memory that training `cfg` takes on each GPU.

    Raises:
        UserError: an unknown model, or data whose files decide what the network looks like and are missing.
    """
    return Estimator(cfg, shape, capability).at(cfg.data.batch_size)
