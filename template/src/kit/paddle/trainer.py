"""`paddle.Model.fit` for a run: its callback, optimizer and initial weights, weights to and from NumPy, predictions."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

import paddle
from paddle import nn
from paddle.nn import initializer
from paddle.profiler import Profiler, SortedKeys
from src.kit.loading import BatchLoader, keep_decoded
from src.kit.paddle.devices import Batches, DeviceBatches, build_batches, choose_image_cache, gather, use_gpu
from src.kit.paddle.inspection import PaddleLayers
from src.kit.paddle.recipes import build_average, find_zeros, update_statistics
from src.kit.paddle.sharding import (
    DividedWeights,
    divided_weights,
    divides_gradients,
    fetch_weight,
    keeps,
    save_state,
)
from src.kit.run import Run
from src.kit.storage import write_text
from src.kit.training import Collector, Experiment, TrainingLoop
from src.kit.weights import (
    check_shapes,
    compressed_shapes,
    load_weights,
    open_weights,
    save_weights,
    stream_weights,
)

PROFILED = 20  # steps
RAW = "raw/"  # in training.safetensors: the weights that were not averaged
PADDLE_KINDS = {"running_mean": "_mean", "running_var": "_variance"}  # of PyTorch's names


def weights_to_numpy(network: nn.Layer) -> dict[str, np.ndarray]:
    """Copy every parameter and BatchNorm statistic to float32, under PyTorch's names, in the network's order."""
    return {
        name: transpose_linear(np.array(tensor.astype("float32").numpy()), transposed)
        for name, tensor, transposed in name_weights(network)
    }


def weights_from_numpy(
    network: nn.Layer, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Copy `arrays` with PyTorch's names and layouts into the network, on any device and in any dtype.

    Args:
        metadata: of the file that they come from; if it was compressed, the network takes its channels.

    Raises:
        UserError: a name or a shape differs; nothing is copied then.
    """
    shapes = named_shapes(network)
    if cut := compressed_shapes(arrays, metadata or {}, shapes):
        resize(network, cut)
        shapes = named_shapes(network)
    check_shapes(arrays, shapes)
    for name, tensor, transposed in name_weights(network):
        if tensor._is_initialized():  # else another process keeps it
            tensor.set_value(paddle.to_tensor(transpose_linear(arrays[name], transposed)).astype(tensor.dtype))


def save_divided(network: nn.Layer, layers: DividedWeights, path: Path, metadata: dict[str, str] | None) -> None:
    """Write divided weights, a tensor at a time, on all ranks together; rank 0, which has `metadata`, writes."""
    every = name_weights(network)
    arrays = (transpose_linear(fetch_weight(layers, tensor), transposed) for _, tensor, transposed in every)
    if metadata is None:
        for _ in arrays:
            pass
    else:
        stream_weights(path, named_shapes(network), arrays, metadata)


def named_shapes(network: nn.Layer) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and BatchNorm statistic in PyTorch's layout, by PyTorch's name."""
    own = name_weights(network)
    return {name: tuple(tensor.shape[::-1] if transposed else tensor.shape) for name, tensor, transposed in own}


def resize(network: nn.Layer, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Cut parameters and statistics to these shapes (PyTorch's), in place, and the layers' sizes with them."""
    layers = dict(network.named_sublayers())
    for name, tensor, transposed in list(name_weights(network)):
        if name not in shapes:
            continue
        shape, (path, _, kind) = shapes[name], name.rpartition(".")
        layer, kept = layers[path], tensor[tuple(map(slice, shape[::-1] if transposed else shape))]
        smaller = layer.create_parameter(kept.shape, dtype=tensor.dtype)
        smaller.set_value(kept)
        # the name, by which the optimizer's state is saved, too
        smaller.name, smaller.stop_gradient = tensor.name, tensor.stop_gradient
        setattr(layer, PADDLE_KINDS.get(kind, kind), smaller)
        if isinstance(layer, nn.BatchNorm2D):
            layer._num_features = shape[0]
        elif kind == "weight" and isinstance(layer, nn.Conv2D):
            layer._groups = shape[0] if layer._groups > 1 else 1  # of depthwise convolutions, each channel is a group
            layer._out_channels, layer._in_channels = shape[0], shape[1] * layer._groups


def name_weights(network: nn.Layer) -> Iterator[tuple[str, paddle.Tensor, bool]]:
    """Yield PyTorch's name, the tensor, and whether it is a Linear weight, (out, in) in PyTorch."""
    linear = {f"{name}.weight" for name, layer in network.named_sublayers() if isinstance(layer, nn.Linear)}
    for name, tensor in network.state_dict().items():
        torch_name = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        yield torch_name, tensor, name in linear


def transpose_linear(array: np.ndarray, transposed: bool) -> np.ndarray:
    """Swap the axes of a Linear layer's weight; leave other arrays."""
    return np.ascontiguousarray(array.T) if transposed else array


def initialise_like_torch(network: nn.Layer) -> nn.Layer:
    """Draw a network's initial weights from PyTorch's distributions, in place.

    Convolutions: Kaiming-normal by fan-out (He et al. 2015, arXiv 1502.01852). Linear layers: uniform +-1/sqrt(in).
    Paddle would draw convolutions by fan-in and linear layers by Xavier's rule, with zero biases. With equal starts the
    same configuration trains alike in both frameworks, and a learning rate found in one serves the other.
    """
    for layer in network.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            initializer.KaimingNormal(mode="fan_out")(layer.weight)
            if layer.bias is not None:
                initializer.Constant(0.0)(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.weight.shape[0])
            for parameter in (each for each in (layer.weight, layer.bias) if each is not None):
                initializer.Uniform(-bound, bound)(parameter)
    return network


def list_layers(network: nn.Layer, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """List the leaf layers in the order in which an input of `shape` (1, C, H, W) passes them.

    Returns:
        A row for each: name, type, output_shape and number of parameters, for `src/kit/report`.
    """
    rows: list[dict[str, Any]] = []

    def add(name: str, layer: nn.Layer) -> Any:
        def hook(module: nn.Layer, inputs: Any, output: Any) -> None:
            if not isinstance(output, paddle.Tensor):  # lists of boxes, for example
                return
            # to Paddle BatchNorm's statistics are parameters, which it does not train
            count = sum(math.prod(each.shape) for each in layer.parameters() if not each.stop_gradient)
            output_shape = tuple(output.shape)
            rows.append({"name": name, "type": type(layer).__name__, "output_shape": output_shape, "parameters": count})

        return layer.register_forward_post_hook(hook)

    handles = [add(name, layer) for name, layer in network.named_sublayers() if not list(layer.children())]
    network.eval()
    try:
        with paddle.no_grad():
            network(paddle.zeros(list(shape)))
    finally:
        for handle in handles:
            handle.remove()
    return rows


def load_batches(experiment: Experiment) -> list[Batches | DeviceBatches]:
    """This rank's training and validation batches."""
    rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    splits = {name: experiment.split(name) for name in ("train", "val")}
    cache = choose_image_cache(experiment.cfg, list(splits.values()))
    kept = {name: keep_decoded(split, cache) for name, split in splits.items()}
    return [build_batches(experiment.build_loader(name, rank, ranks, kept[name]), cache) for name in kept]


class RunCallback(paddle.callbacks.Callback):
    """Tells the loop of every batch and epoch, and writes and reads its checkpoints."""

    def __init__(self, experiment: Experiment, trained: Any, loop: TrainingLoop, batches: Any) -> None:
        """`trained` is the `Model` of `src/trainers/paddle.py`, `batches` its training batches."""
        super().__init__()
        self.experiment, self.trained, self.loop, self.batches = experiment, trained, loop, batches
        self.loader: BatchLoader = batches.loader
        self.average = build_average(experiment.cfg, trained.network)
        self.masks = find_zeros(trained.network)
        self.layers = divided_weights(trained.optimizer)
        self.others = 0  # batches that another rank has more to validate

    def on_train_begin(self, logs: Any = None) -> None:
        if not divides_gradients(self.trained.optimizer):  # a process that looks alone would wait for the others
            self.loop.inspect(PaddleLayers(self.trained.network))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        paddle.seed(self.loop.draw_seed())
        self.loop.start_epoch()

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        self.loop.next_lr()

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        for weights, mask in self.masks:
            weights.set_value(weights * mask)
        if self.average and (rest := self.loop.average_rest()) < 1:
            self.average.update(rest)
        self.loop.step(self.trained.last_loss)
        if self.loop.save_within_epoch(self.save):
            paddle.seed(self.loop.draw_seed())

    def on_eval_begin(self, logs: Any = None) -> None:
        self.trained.collector.restart()
        if self.average and self.loop.averaged():
            self.average.swap()
            if self.experiment.cfg.trainer.swa is not None:
                self.loader.set_epoch(self.loop.epoch)
                network = self.trained.network
                sent = (batch if self.trained.takes_targets else batch[:1] for batch in self.batches)
                update_statistics(network, (partial(network, *arguments) for arguments in sent))
        if paddle.distributed.get_world_size() > 1:  # rank 0's statistics, which the checkpoint has
            for name, tensor in self.trained.network.state_dict().items():
                if name.endswith(tuple(PADDLE_KINDS.values())):
                    paddle.distributed.broadcast(tensor, src=0)
        if self.layers:
            self.others = max(gather(logs["steps"])) - logs["steps"]

    def on_eval_end(self, logs: Any = None) -> None:
        height, width, channels = self.experiment.input_shape
        for _ in range(self.others):  # whose layers wait for the weights that this one keeps
            with paddle.no_grad():
                self.trained.network(paddle.zeros([1, channels, height, width]))
        if self.average and self.loop.averaged():
            self.average.swap()
        collected, loss = self.trained.collector.result(gather)
        stop = self.loop.end_epoch(collected, loss, self.save, self.trained.logged)
        self.trained.stop_training = self.trained.stop_training or stop

    def save(self, folder: Path) -> None:
        """Write the weights in the neutral format, and optimizer, scaler and loop without any pickle.

        Rank 0 writes; the others send it their part of the optimizer's state, and of the weights.
        """
        path, optimizer = folder / "training.safetensors", self.trained.optimizer
        network, main = self.trained.network, paddle.distributed.get_rank() == 0
        described = self.experiment.metadata(network) if main else None
        if self.layers:
            save_divided(network, self.layers, folder / "model.safetensors", described)
        if described is None:
            save_state(optimizer, path, {}, None)
            return
        raw = {RAW + name: array for name, array in weights_to_numpy(network).items()} if self.average else {}
        if not self.layers:
            with self.average.applied() if self.average and self.loop.averaged() else nullcontext():
                arrays = weights_to_numpy(network)
            save_weights(folder / "model.safetensors", arrays, described)
        scaler = {name: float(value) for name, value in self.trained.scaler.state_dict().items()}
        metadata = {"loop": json.dumps(self.loop.state_dict()), "scaler": json.dumps(scaler)}
        save_state(optimizer, path, raw, metadata)

    def load_checkpoint(self, folder: Path) -> None:
        """Continue from a checkpoint folder."""
        weights_from_numpy(self.trained.network, load_weights(folder / "model.safetensors")[0])
        with open_weights(folder / "training.safetensors") as file:
            names = [*file.keys()]
            own = [name for name in names if name.startswith(RAW) or keeps(self.trained.optimizer, name)]
            arrays, metadata = {name: file.get_tensor(name) for name in own}, file.metadata() or {}
        if self.average:
            self.average = build_average(self.experiment.cfg, self.trained.network)
            names = [name for name in arrays if name.startswith(RAW)]
            weights_from_numpy(self.trained.network, {name.removeprefix(RAW): arrays.pop(name) for name in names})
        self.trained.optimizer.set_state_dict({name: paddle.to_tensor(value) for name, value in arrays.items()})
        if scaler := json.loads(metadata["scaler"]):
            self.trained.scaler.load_state_dict({name: np.array([v], "float32") for name, v in scaler.items()})
        self.loop.load_state_dict(json.loads(metadata["loop"]))


class Profile(paddle.callbacks.Callback):
    """Writes profile.txt, the time of each operation in the training steps 3 to 22, into the run folder."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.profiler = Profiler(scheduler=(2, 2 + PROFILED), on_trace_ready=self.write)

    def write(self, profiler: Any) -> None:
        """Write the operations in the order of their time; Paddle only prints its tables."""
        with redirect_stdout(StringIO()) as text:
            profiler.summary(sorted_by=SortedKeys.CPUTotal, op_detail=True, thread_sep=False, time_unit="ms")
        if self.run.main:
            write_text(self.run.path / "profile.txt", text.getvalue())

    def on_train_begin(self, logs: Any = None) -> None:
        self.profiler.start()

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        self.profiler.step()

    def on_train_end(self, logs: Any = None) -> None:
        with redirect_stdout(StringIO()):  # Paddle prints a table of its own
            self.profiler.stop()
        if (path := self.run.path / "profile.txt").is_file():
            self.run.log.info("profile: %s", path)


def to_numpy(tensor: paddle.Tensor) -> np.ndarray:
    """Fetch a tensor; bfloat16 and float16 become float32."""
    array: np.ndarray = (tensor.astype("float32") if tensor.is_floating_point() else tensor).numpy()
    return array


def load_network(experiment: Experiment, checkpoint: Path | None) -> paddle.nn.Layer:
    """The experiment's network with a checkpoint folder's weights, or as training starts it, ready to evaluate."""
    paddle.set_device("gpu" if use_gpu(experiment.cfg) else "cpu")
    paddle.seed(experiment.cfg.seed)
    network: paddle.nn.Layer = experiment.build_network(initial=checkpoint is None)
    if checkpoint:
        weights_from_numpy(network, *load_weights(checkpoint / "model.safetensors"))
    network.eval()
    return network


def predict(experiment: Experiment, network: paddle.nn.Layer, split: str) -> list[Any]:
    """What the task collects from a network's predictions for a split, in float32."""
    collector = Collector(experiment.task, to_numpy)
    with paddle.no_grad():
        for images, *targets in Batches(experiment.build_loader(split)):
            collector.add(network(images), targets)
    return collector.result()[0]


def predict_images(network: paddle.nn.Layer, images: Any) -> Any:
    """Outputs, a NumPy array, for one batch of normalised images float32 (B, C, H, W)."""
    place = network.parameters()[0].place  # an export in between leaves the CPU as Paddle's device
    with paddle.no_grad():
        return to_numpy(network(paddle.to_tensor(images, place=place)))
