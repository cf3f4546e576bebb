"""`scripts/compress.py`: remove channels or weights of a trained network, train it on, and show what that gained.

The arithmetic is NumPy's, on weights that belong to no framework; both build the smaller network from their shapes. A
network's file says which channels can go, in a constant that both frameworks' files have:

    PRUNABLE = ("layer*.*: conv1 bn1 > conv2",)

Layers on the left make these channels, layers on the right read them, and no others do. A star is any number, the same
in all of them, and a part before a colon begins all names. Where a layer is missing, the rule does not apply.
"""

import json
import math
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError, buildable, find_component, load_component, load_config
from src.kit.edge_search import Candidate, measure
from src.kit.memory import fit_to_machine
from src.kit.ranks import find_place, is_main_process
from src.kit.run import write_json
from src.kit.training import (
    Experiment,
    export_run,
    find_checkpoint,
    load_backend,
    load_run,
    merge_adapters,
    newest_run,
    restore_config,
    train_run,
)
from src.kit.weights import compression_of, load_weights, save_weights

__all__ = ["compress_command", "find_rules", "prune_channels", "prune_weights"]

Arrays = dict[str, np.ndarray]
STEP = 8  # channels: the width of a processor's vector registers
PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Group:
    """Channels that go together: layers whose outputs they are, and layers that read them."""

    makers: tuple[str, ...]
    readers: tuple[str, ...]


def find_groups(names: Sequence[str], rules: Sequence[str]) -> Iterator[Group]:
    """The groups of channels that a network's rules name and whose layers it has.

    Args:
        names: of the network's layers.
        rules: see the module's first lines.
    """
    known = set(names)
    for rule in rules:
        start, colon, rest = rule.rpartition(":")
        sides = [[f"{start}.{word}" if colon else word for word in side.split()] for side in rest.split(">")]
        pattern = re.compile(re.escape(sides[0][0]).replace(r"\*", r"(\d+)"))
        for name in names:
            if found := pattern.fullmatch(name):
                makers, readers = ([fill(word, found.groups()) for word in side] for side in sides)
                if known.issuperset([*makers, *readers]):
                    yield Group(tuple(makers), tuple(readers))


def fill(word: str, numbers: Sequence[str]) -> str:
    """`layer*.*.conv2` with 1 and 0 -> `layer1.0.conv2`."""
    for number in numbers:
        word = word.replace("*", number, 1)
    return word


def prune_channels(arrays: Mapping[str, np.ndarray], rules: Sequence[str], share: float) -> Arrays:
    """Remove the channels that matter least of every group.

    A channel's magnitude is the L1 norm of its filter (Li et al. 2017, arXiv 1608.08710) times the scale of its
    normalisation (Liu et al. 2017, arXiv 1708.06519). Of layers with a multiple of 16 channels a multiple of 8 is kept,
    which processors compute fastest.

    Args:
        arrays: of the whole network, PyTorch's names and layouts.
        rules: the network's `PRUNABLE`.
        share: of the channels to remove, in (0, 1); one is always left.

    Returns:
        All arrays, those of the groups smaller. Empty if no rule applies.
    """
    pruned = dict(arrays)
    groups = list(find_groups([name.removesuffix(".weight") for name in arrays if name.endswith(".weight")], rules))
    for group in groups:
        kept = choose(arrays, group, share)
        for name in group.makers:
            for key in (f"{name}.{part}" for part in PARTS):
                if key in pruned:
                    pruned[key] = np.ascontiguousarray(pruned[key][kept])
        for name in group.readers:
            weight = pruned[f"{name}.weight"]
            channels = len(arrays[f"{group.makers[0]}.weight"])
            # after a flattened map, each channel is as many inputs as the map has cells
            cells = weight.reshape(len(weight), channels, -1, *weight.shape[2:])[:, kept]
            pruned[f"{name}.weight"] = np.ascontiguousarray(cells.reshape(len(weight), -1, *weight.shape[2:]))
    return pruned if groups else {}


def choose(arrays: Mapping[str, np.ndarray], group: Group, share: float) -> np.ndarray:
    """Indices of the channels to keep, ascending."""
    first, *others = (arrays[f"{name}.weight"] for name in group.makers)
    magnitudes = np.abs(first).reshape(len(first), -1).sum(axis=1)
    for scale in others:
        if scale.ndim == 1:
            magnitudes = magnitudes * np.abs(scale)
    step = STEP if len(first) % (2 * STEP) == 0 else 1
    count = max(1, step, round(len(first) * (1 - share) / step) * step)
    return np.sort(np.argsort(-magnitudes, kind="stable")[: min(count, len(first))])


def prune_weights(arrays: Mapping[str, np.ndarray], share: float, pattern: str | None = None) -> Arrays:
    """Set the smallest weights of each layer to zero (Han et al. 2015, arXiv 1506.02626).

    Layers with one input channel stay as they are: the first one of grey images, and depthwise convolutions.

    Args:
        share: of each layer's weights, in (0, 1).
        pattern: "2:4": the smaller two of every four weights along the input channels, which the sparse tensor cores of
            GPUs take (Mishra et al. 2021, arXiv 2104.08378); layers whose input channels are no multiple of 4 stay.
    """
    pruned = dict(arrays)
    for name, array in arrays.items():
        if array.ndim < 2 or array.shape[1] == 1 or not name.endswith("weight"):
            continue
        if pattern is None:
            flat = array.flatten()
            flat[np.argsort(np.abs(flat), kind="stable")[: round(share * flat.size)]] = 0
            pruned[name] = flat.reshape(array.shape)
        elif array.shape[1] % 4 == 0:
            fours = np.moveaxis(array, 1, -1).reshape(*array.shape[:1], *array.shape[2:], -1, 4).copy()
            np.put_along_axis(fours, np.argsort(np.abs(fours), axis=-1, kind="stable")[..., :2], 0, axis=-1)
            pruned[name] = np.moveaxis(fours.reshape(*array.shape[:1], *array.shape[2:], -1), -1, 1)
    return {name: np.ascontiguousarray(array) for name, array in pruned.items()}


@dataclass
class Row:
    """A line of the table: one network, and what was measured of it."""

    name: str
    parameters: int  # without statistics
    zeros: float  # share of them
    megabytes: float  # of model.safetensors
    zipped: float  # megabytes, deflated
    operations: float  # millions of multiplications for one sample
    score: float
    milliseconds: float | None = None  # median of one sample, ONNX Runtime, one thread


def compress_command(
    words: Sequence[str],
    channels: float | None = None,
    sparsity: float | None = None,
    pattern: str | None = None,
    epochs: int | None = None,
    checkpoint: str = "best",
) -> Path:
    """Compress a run, train it on, print the table, and return the new run.

    Args:
        words: the run (none: the newest), and `key=value` of its training.

    Raises:
        UserError: a bad option, a network that has no such channels, or what `train_run` raises.
    """
    check_options(channels, sparsity, pattern, epochs)
    run, keys = read_words(words)
    restore_config(run)
    cfg, dense = load_config([], base=run / "config.yaml"), find_checkpoint(run, checkpoint)
    folder = run / folder_name(channels=channels, sparsity=sparsity, pattern=pattern)
    overrides = [
        f"model.weights={(folder / 'model.safetensors').as_posix()}",
        "model.pretrained=false",
        "model.lora=null",
        f"trainer.max_epochs={cfg.trainer.max_epochs if epochs is None else epochs}",
        f"name={cfg.name.removesuffix('-compressed')}-compressed",
    ]
    continued = load_config([*overrides, *keys], base=run / "config.yaml")
    rows = []
    if is_main_process():  # Lightning starts its other processes by the same command
        compress(cfg, dense, folder, channels, sparsity, pattern)
        experiment = load_run(run).experiment
        compressed = Experiment(continued, experiment.splits)
        rows = [describe(experiment, "before", dense), describe(compressed, "compressed", folder)]
        share = rows[1].parameters / rows[0].parameters
        sys.stdout.write(f"{folder}: {share:.0%} of the parameters, {rows[1].zeros:.0%} of them zero; now trained on\n")
    done = train_run(continued, fit_memory=fit_to_machine)
    if is_main_process():
        rows.append(describe(load_run(done).experiment, "trained on", find_checkpoint(done, "best")))
        time_exports(rows, [(run, checkpoint), (done, "best")])
        metric = experiment.task.monitor
        write_json(done / "compression.json", {"run": str(run), "score": metric, "rows": [asdict(row) for row in rows]})
        sys.stdout.write(f"{table(rows, metric)}written: {done}\n")
    return done


def folder_name(**removed: float | str | None) -> str:
    """`sparsity=0.5, pattern="2:4"` -> "compressed-sparsity-0.5-pattern-2-4"."""
    done = (f"{name}-{str(value).replace(':', '-')}" for name, value in removed.items() if value)
    return "-".join(["compressed", *done])


def read_words(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The run, or the newest, and the words that are `key=value`.

    Raises:
        UserError: more than one run.
    """
    runs = [word for word in words if "=" not in word]
    if len(runs) > 1:
        raise UserError(f"Cannot read {runs[1]!r}: write [RUN] [key=value ...] and the options.")
    return Path(runs[0]) if runs else newest_run(Path("outputs")), [word for word in words if "=" in word]


def check_options(channels: float | None, sparsity: float | None, pattern: str | None, epochs: int | None) -> None:
    """Refuse what cannot be followed.

    Raises:
        UserError: nothing to do, a share that is none, two that contradict each other, or a launcher.
    """
    for name, share in (("channels", channels), ("sparsity", sparsity)):
        if share is not None and not 0 < share < 1:
            raise UserError(f"--{name} {share:g} must be between 0 and 1: it is the share that is removed.")
    if channels is None and sparsity is None and pattern is None:
        raise UserError("Say what to remove: --channels 0.5, --sparsity 0.5 or --pattern 2:4.")
    if pattern and sparsity not in (None, 0.5):
        raise UserError(f"--pattern 2:4 sets half of the weights to zero: leave --sparsity {sparsity:g} out.")
    if epochs is not None and epochs < 1:
        raise UserError(f"--epochs {epochs} must be 1 or more: what is removed costs accuracy at first.")
    if find_place():
        raise UserError("scripts/compress.py starts the processes that it needs itself: run it without a launcher.")


def compress(
    cfg: DictConfig,
    checkpoint: Path,
    folder: Path,
    channels: float | None,
    sparsity: float | None,
    pattern: str | None,
) -> None:
    """Write the compressed weights of a checkpoint, and how they were compressed, as `folder`/model.safetensors.

    Raises:
        UserError: the network has no such channels, or no weights to set to zero.
    """
    dense, metadata = load_weights(checkpoint / "model.safetensors")
    dense = merge_adapters(dense)
    arrays, how = dense, compression_of(metadata)
    if channels is not None:
        arrays = prune_channels(arrays, find_rules(cfg), channels)
        changed = {name: array.shape for name, array in dense.items() if array.shape != arrays[name].shape}
        if not changed:
            raise UserError(f"model={cfg.model.name} is too narrow for --channels {channels:g}: remove more.")
        how |= {"channels": channels, "dense": changed | how.get("dense", {})}
    if sparsity is not None or pattern:
        arrays = prune_weights(arrays, sparsity or 0.5, pattern)
        if all((array != 0).all() for array in arrays.values() if array.ndim > 1):
            raise UserError(f"model={cfg.model.name} has no weights that could be set to zero: use --channels.")
        how |= {"sparsity": sparsity or 0.5, "pattern": pattern}
    folder.mkdir(exist_ok=True)
    save_weights(folder / "model.safetensors", arrays, {**metadata, "compression": json.dumps(how)})


def find_rules(cfg: DictConfig) -> Sequence[str]:
    """The `PRUNABLE` of a network's file.

    Raises:
        UserError: it has none; names the networks that have.
    """
    component = load_component("model", str(cfg.model.get("file") or cfg.model.name), cfg.framework)
    if rules := getattr(component, "PRUNABLE", ()):
        return tuple(rules)
    files = {name: find_component("model", name, cfg.framework) for name in buildable("model", cfg.framework)}
    able = [name for name, path in files.items() if path and re.search("^PRUNABLE", path.read_text("utf-8"), re.M)]
    raise UserError(
        f"model={cfg.model.name} has no channels to remove (PRUNABLE in its file): --channels works for "
        f"the networks in {', '.join(able)}, --sparsity for all."
    )


def describe(experiment: Experiment, name: str, checkpoint: Path) -> Row:
    """Count and score the weights of a checkpoint folder, on the validation split."""
    file, backend = checkpoint / "model.safetensors", load_backend(experiment.cfg)
    arrays = load_weights(file)[0]
    trained = [array for key, array in arrays.items() if not key.endswith(("running_mean", "running_var"))]
    count = sum(array.size for array in trained)
    network = backend.load_network(experiment, checkpoint)
    score = experiment.score(backend.predict(experiment, network, "val"))[experiment.task.monitor.removeprefix("val/")]
    height, width, channels = experiment.input_shape
    operations = multiplications(arrays, backend.list_layers(network, (1, channels, height, width)))
    zeros = sum(int((array == 0).sum()) for array in trained) / count
    data = file.read_bytes()
    return Row(name, count, zeros, len(data) / 1e6, len(zlib.compress(data)) / 1e6, operations / 1e6, score)


def multiplications(arrays: Mapping[str, np.ndarray], layers: Iterable[Mapping[str, Any]]) -> int:
    """Multiplications by weights, for one sample: those of attention between its own inputs are not counted.

    Args:
        arrays: of the network, PyTorch's names and layouts.
        layers: rows of `list_layers`, with the output's shape for one sample.
    """
    total = 0
    for layer in layers:
        weight = arrays.get(f"{layer['name']}.weight")
        if weight is not None and weight.ndim > 1 and layer["type"] != "Embedding":  # which looks its rows up
            total += math.prod(layer["output_shape"]) * math.prod(weight.shape[1:])  # a row of weights for each output
    return total


def time_exports(rows: Sequence[Row], runs: Sequence[tuple[Path, str]]) -> None:
    """Export both runs and time them in turns: the first row's and the last one's."""
    with TemporaryDirectory() as scratch:
        targets = [Path(scratch) / str(number) for number in range(len(runs))]
        try:
            for (run, checkpoint), target in zip(runs, targets, strict=True):
                export_run(run, ["onnx"], checkpoint, target=target, reference=False)
        except UserError as error:  # the runs are good, though
            sys.stderr.write(f"warning: the networks cannot be timed: {error}\n")
            return
        candidates = [Candidate(target, "onnxruntime", "f32", threads=1, batch=1) for target in targets]
        measure(candidates)
    rows[0].milliseconds, rows[-1].milliseconds = (candidate.milliseconds for candidate in candidates)


def table(rows: Sequence[Row], metric: str) -> str:
    """The rows as text."""
    lines = [f"{'':<12}{'parameters':>12}{'zeros':>7}{'MB':>8}{'zipped':>8}{'M mult.':>10}{metric:>14}{'ms':>8}"]
    for row in rows:
        time = f"{row.milliseconds:8.3f}" if row.milliseconds else f"{'-':>8}"
        lines.append(
            f"{row.name:<12}{row.parameters:>12,}{row.zeros:>7.0%}{row.megabytes:>8.2f}{row.zipped:>8.2f}"
            f"{row.operations:>10,.2f}{row.score:>14.4f}{time}"
        )
    return "\n".join(lines) + "\n"
