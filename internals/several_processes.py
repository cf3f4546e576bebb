"""One of several processes that train together, as scripts/train.py does, with a record of the samples that each sees.

    python ../internals/several_processes.py FOLDER [FAULT] -- trainer.devices=2 ...

The network has no batch normalisation, which would make it depend on how a batch is divided. Each batch's sample
numbers go into FOLDER/RANK.jsonl. FAULT, such as 1:25:kill, happens to rank 1 at its 25th batch, once in FOLDER: `kill`
is SIGKILL, as by a kernel out of memory, and `mistake` is an error that a user can fix.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "template"))

from scripts.train import main
from src.kit.config import UserError, run_main
from src.kit.loading import ArrayImages
from src.kit.ranks import find_place
from src.kit.training import Experiment, build_model, runs
from src.kit.weights import load_weights


def own_rank() -> int:
    """This process's number among those that train."""
    place = find_place()
    return place.rank if place else int(os.environ.get("LOCAL_RANK", 0))


def leave_out_normalisation(network: Any) -> Any:
    """The network, changed in place."""
    for name, layer in list(network.named_children()):
        if "BatchNorm" in type(layer).__name__:
            setattr(network, name, type(network)())  # an empty Sequential
    return network


def build_without_normalisation(*arguments: Any, **keys: Any) -> Any:
    """`build_model`, as the processes do."""
    return leave_out_normalisation(build_model(*arguments, **keys))


def record(folder: Path, fault: str = "", replace: Callable[..., None] = setattr) -> None:
    """Write down what `ArrayImages` are asked for, leave batch normalisation out, and skip the evaluation."""
    fetch, build = ArrayImages.get, Experiment.build_network
    rank, when, kind = fault.split(":") if fault else ("0", "0", "")
    seen = 0

    def get(images: ArrayImages, indices: Any) -> Any:
        nonlocal seen
        with (folder / f"{own_rank()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps([len(images), indices.tolist()]) + "\n")
        seen += 1
        if seen == int(when) and own_rank() == int(rank) and not (folder / "happened").exists():
            (folder / "happened").touch()
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise UserError("data.root holds a photo of a cat.")
        return fetch(images, indices)

    def without_normalisation(experiment: Experiment, *how: Any, **more: Any) -> Any:
        return leave_out_normalisation(build(experiment, *how, **more))

    replace(ArrayImages, "get", get)
    replace(Experiment, "build_network", without_normalisation)
    replace(runs, "finish", lambda experiment, run, splits: None)
    if any(word.startswith("trainer.strategy=fsdp") for word in sys.argv):
        record_held(folder)
    if "trainer.strategy=zero_1" in sys.argv:
        record_state(folder, replace)


def record_held(folder: Path) -> None:
    """Write what this process holds after a step into FOLDER/RANK.held: kind -> bytes."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def write(optimizer: Any, *_: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        states = [value for state in optimizer.state.values() for value in state.values()]
        held = {"parameters": weights, "gradients": [weight.grad for weight in weights], "optimizer": states}
        sizes = {}
        for kind, every in held.items():  # gradients of a block share their memory
            parts = [each.to_local() if hasattr(each, "to_local") else each for each in every]
            memory = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
            sizes[kind] = sum(memory.values())
        (folder / f"{own_rank()}.held").write_text(json.dumps(sizes), "utf-8")

    register_optimizer_step_post_hook(write)


def record_state(folder: Path, replace: Callable[..., None]) -> None:
    """`record_held` for Paddle, whose weights and gradients stay whole; Adam's powers of beta are left out."""
    from src.kit.paddle.sharding import Part, own_state

    attach = Part.attach

    def attach_and_write(part: Part, optimizer: Any) -> None:
        attach(part, optimizer)
        step = optimizer.step

        def step_and_write() -> None:
            step()
            tensors = [each for each in own_state(optimizer).values() if each.size > 1]
            held = {"optimizer": sum(each.size * each.element_size() for each in tensors)}
            (folder / f"{own_rank()}.held").write_text(json.dumps(held), "utf-8")

        optimizer.step = step_and_write

    replace(Part, "attach", attach_and_write)


def read_record(folder: Path) -> dict[int, list[tuple[int, list[int]]]]:
    """Rank -> (size of the split, sample numbers) of each batch."""
    files = sorted(folder.glob("*.jsonl"))
    return {int(file.stem): [tuple(json.loads(line)) for line in file.open(encoding="utf-8")] for file in files}


def last_weights(run: Path) -> Any:
    """Name -> array of a run's last checkpoint."""
    return load_weights(runs.find_checkpoint(run, "last") / "model.safetensors")[0]


if __name__ in ("__main__", "__mp_main__"):  # spawned processes import the script that started them
    split = sys.argv.index("--")
    record(Path(sys.argv[1]), *sys.argv[2:split])
    if __name__ == "__main__":
        run_main(main, sys.argv[split + 1 :])
