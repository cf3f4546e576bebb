"""A trained network in every runtime that is installed, in floating point and INT8: images a second, and what it loses.

    cd template && python ../benchmarks/gpu_inference.py RUN [--batch 64] [--images 2048] [--seconds 2] [--no-compile]

In a project's folder; RUN is a classifier that Lightning has trained. The network is exported and quantized by the
project. Prints one JSON object: of each runtime the images a second (median of three turns), the accuracy on the test
split and the difference (the largest, of logits, as a share of float32's largest), or what it said when it failed;
PyTorch's matrix products in 10^12 operations a second; and what is not installed. torchao is left out, since it
quantizes linear layers, of which these networks have one.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path.cwd()))

import numpy as np
import torch

from src.kit.edge import fix_batch, quantize
from src.kit.inference import read_card
from src.kit.training import export_run, load_experiment, training_batches
from src.kit.training.exports import RunPredictor

EXPORT = ("onnx", "onnxscript", "onnxruntime")  # what exporting and quantizing need
TURNS = 3
SIDE = 8192  # of the square matrices
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TENSORRT = {"TensorrtExecutionProvider": {"trt_fp16_enable": True, "trt_int8_enable": True}}
PROVIDERS: dict[str, dict[str, dict[str, Any]]] = {  # name -> providers, with their options
    "ONNX Runtime TensorRT": TENSORRT,
    "ONNX Runtime CUDA": {"CUDAExecutionProvider": {}},
    "ONNX Runtime CPU": {"CPUExecutionProvider": {}},
}
Compute = Callable[[torch.Tensor], torch.Tensor]  # float32 (B, C, H, W) on DEVICE -> logits (B, K) on any


def main(argv: list[str]) -> None:
    """Build, check and time all there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args(argv)
    images, labels = read_images(options.run, options.images, options.batch)
    found: dict[str, Any] = {}
    ready: dict[str, Compute] = {}
    logits: dict[str, np.ndarray] = {}
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        for name, build in candidates(options.run, images[: options.batch], Path(folder), not options.no_compile):
            try:
                compute = build()
                parts = [compute(part).float().cpu().numpy().copy() for part in images.split(options.batch)]
            except Exception as error:  # each runtime raises kinds of its own
                found[f"{name} failed"] = " ".join(str(error).split())[:200]
                continue
            ready[name], logits[name] = compute, np.concatenate(parts)[: len(labels)]
        rates: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(TURNS):
            for name, compute in ready.items():
                rates[name].append(speed(partial(compute, images[: options.batch]), options.batch, options.seconds))
    exact = logits["eager float32"]
    for name, own in logits.items():
        found[f"{name} images/s"] = statistics.median(rates[name])
        found[f"{name} accuracy"] = float((own.argmax(axis=1) == labels).mean())
        found[f"{name} difference"] = float(np.abs(own - exact).max() / np.abs(exact).max())
    found |= products(SIDE if DEVICE == "cuda" else 256, options.seconds)
    print(json.dumps(found | {"not installed": ", ".join(missing()) or "nothing"}))


def read_images(run: Path, count: int, batch: int) -> tuple[torch.Tensor, np.ndarray]:
    """Up to `count` images of the test split on the device, the last of which fill the last batch, and their labels."""
    experiment = load_experiment(run)
    dataset = experiment.split("test")
    chosen = dataset.take(np.random.default_rng(0).permutation(len(dataset))[:count])
    loader = experiment.build_loader("test", dataset=chosen)
    parts = [(np.array(images, np.float32), np.array(labels)) for images, labels in loader]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    rows = np.minimum(np.arange(-(-len(images) // batch) * batch), len(images) - 1)
    return torch.from_numpy(images[rows]).to(DEVICE), labels


def candidates(
    run: Path, example: torch.Tensor, folder: Path, compiled: bool
) -> Iterator[tuple[str, Callable[[], Compute]]]:
    """The name of each way to compute the network, and what makes it ready."""
    network = RunPredictor(run).network
    half = torch.bfloat16
    yield "eager float32", lambda: inference(network)
    yield "eager bf16", lambda: inference(network, half)
    if compiled:
        yield "torch.compile bf16", lambda: inference(torch.compile(network), half)
    if DEVICE == "cuda" and find_spec("torch_tensorrt"):
        yield "torch_tensorrt float16", lambda: torch_tensorrt(network, example)
    if not all(map(find_spec, EXPORT)):
        return
    import onnxruntime

    export, _ = export_run(run, ["onnx"], target=folder / "export", reference=False)
    batches = training_batches(load_experiment(run), read_card(export))
    files = {"float": export / "model.onnx", "INT8": folder / "int8.onnx", "signed": folder / "signed.onnx"}
    quantize(files["float"], files["INT8"], batches)
    quantize(files["float"], files["signed"], batches, symmetric=True)
    for file in files.values():
        fix_batch(file, len(example))  # TensorRT would build an engine for each size
    for name, providers in PROVIDERS.items():
        if next(iter(providers)) in onnxruntime.get_available_providers():
            yield f"{name} float", partial(onnx_session, files["float"], providers, example)
            if "CUDA" not in name:  # which has no INT8 convolutions
                signed = files["signed" if "TensorRT" in name else "INT8"]
                yield f"{name} INT8", partial(onnx_session, signed, providers, example)
    if DEVICE == "cuda" and find_spec("tensorrt"):
        yield "TensorRT float16", partial(tensorrt_engine, files["float"], example)
        yield "TensorRT INT8", partial(tensorrt_engine, files["signed"], example)


def missing() -> list[str]:
    """What would have given rows and is not here."""
    absent = [name for name in (*EXPORT, "tensorrt", "torch_tensorrt") if not find_spec(name)]
    if "onnxruntime" not in absent:
        there = import_module("onnxruntime").get_available_providers()
        absent += [name for name, providers in PROVIDERS.items() if next(iter(providers)) not in there]
    return absent if DEVICE == "cuda" else ["a GPU", *absent]


def inference(network: Any, half: torch.dtype | None = None) -> Compute:
    """The network in PyTorch; in half precision with autocast and channels last, as training and evaluation run it."""

    def compute(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(DEVICE, half, enabled=half is not None):
            return network(images.to(memory_format=torch.channels_last) if half else images)

    return compute


def torch_tensorrt(network: torch.nn.Module, example: torch.Tensor) -> Compute:
    """The network in float16, compiled by Torch-TensorRT."""
    compiler: Any = import_module("torch_tensorrt")
    half = copy.deepcopy(network).half()
    compiled = compiler.compile(half, ir="dynamo", inputs=[example.half()], enabled_precisions={torch.float16})
    return lambda images: compiled(images.half())


def onnx_session(file: Path, providers: dict[str, dict[str, Any]], example: torch.Tensor) -> Compute:
    """ONNX Runtime with one provider, on memory of PyTorch's tensors."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=list(providers.items()))
    first = next(iter(providers))
    if first not in session.get_providers():
        raise RuntimeError(f"{first} is listed and does not load: its libraries are not installed.")
    device = "cpu" if first == "CPUExecutionProvider" else DEVICE
    (image,), (result,) = session.get_inputs(), session.get_outputs()
    output = torch.empty([len(example), result.shape[1]], device=device)

    def compute(images: torch.Tensor) -> torch.Tensor:
        images = images.to(device).contiguous()
        binding = session.io_binding()
        binding.bind_input(image.name, device, 0, np.float32, images.shape, images.data_ptr())
        binding.bind_output(result.name, device, 0, np.float32, output.shape, output.data_ptr())
        session.run_with_iobinding(binding)
        return output

    return compute


def tensorrt_engine(file: Path, example: torch.Tensor) -> Compute:
    """An engine that TensorRT builds of an .onnx file, in float16 and, where the file says so, INT8."""
    trt: Any = import_module("tensorrt")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse(file.read_bytes()):
        raise RuntimeError(parser.get_error(0).desc())
    config = builder.create_builder_config()
    for flag in ("FP16", "INT8"):
        if hasattr(trt.BuilderFlag, flag):
            config.set_flag(getattr(trt.BuilderFlag, flag))
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(builder.build_serialized_network(network, config))
    context = engine.create_execution_context()
    output = torch.empty(tuple(engine.get_tensor_shape("output")), device=DEVICE)

    def compute(images: torch.Tensor) -> torch.Tensor:
        assert runtime  # must outlive the engine
        context.set_tensor_address("input", images.data_ptr())
        context.set_tensor_address("output", output.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return output

    return compute


def speed(work: Callable[[], Any], count: float, seconds: float) -> float:
    """How many of `count` a call is done a second, in at least `seconds` after a warm-up."""
    for _ in range(3):
        work()
    wait()
    started, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or not calls:
        for _ in range(5):
            work()
        calls += 5
        wait()
    return count * calls / passed


def wait() -> None:
    """Block until the GPU is idle."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def products(side: int, seconds: float) -> dict[str, float]:
    """10^12 operations a second of square matrix products: PyTorch's own of int8, which is exact, and of bf16."""
    whole = [torch.randint(-127, 128, (side, side), dtype=torch.int8, device=DEVICE) for _ in range(2)]
    row = torch._int_mm(*whole)[:1].cpu().long()
    if not torch.equal(row, whole[0][:1].cpu().long() @ whole[1].cpu().long()):
        raise RuntimeError("torch._int_mm is not exact.")
    half = [matrix.bfloat16() for matrix in whole]
    works = {"torch._int_mm": partial(torch._int_mm, *whole), "torch.mm bf16": partial(torch.mm, *half)}
    return {f"{name} 10^12/s": speed(work, 2e-12 * side**3, seconds) for name, work in works.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
