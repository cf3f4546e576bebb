"""INT8 leaves out what would be destroyed, and candidates convert as they should."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from src.kit.edge import arithmetic_nodes, convert, quantize, set_runtime
from src.kit.edge_search import Candidate, fill, keep, read_batches, read_size
from src.kit.errors import UserError
from src.kit.inference import Card, Predictor


def write_network(path: Path) -> Path:
    """conv -> relu -> conv -> arithmetic whose result spans five orders of magnitude, as a detector's boxes may."""
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal((4, 4, 3, 3)).astype("f4") / 6 for name in ("w1", "w2")}
    constants = {"steps": np.geomspace(1e-2, 1e3, 4, dtype=np.float32)}
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["a"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "conv2", pads=[1] * 4),
        helper.make_node("Transpose", ["c"], ["d"], "turn", perm=[0, 2, 3, 1]),
        helper.make_node("Softmax", ["d"], ["e"], "softmax", axis=3),
        helper.make_node("MatMul", ["e", "steps"], ["output"], "sum"),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4, 8, 8])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 8, 8])
    arrays = [numpy_helper.from_array(value, name) for name, value in (weights | constants).items()]
    graph = helper.make_graph(nodes, "network", [image], [output], arrays)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_int8_leaves_out_what_follows_the_last_layer_with_weights(tmp_path):
    path = write_network(tmp_path / "model.onnx")
    assert sorted(arithmetic_nodes(onnx.load(path).graph)) == ["softmax", "sum", "turn"]
    batches = [np.random.default_rng(seed).standard_normal((8, 4, 8, 8), dtype=np.float32) for seed in range(4)]
    quantize(path, tmp_path / "int8.onnx", batches)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    kinds = {value.name: value.data_type for value in graph.initializer}
    assert sum(kind == TensorProto.INT8 for kind in kinds.values()) >= 2, "both convolutions"
    made = {name: node for node in graph.node for name in node.output}
    (product,) = (node for node in graph.node if node.op_type == "MatMul")
    assert made[product.input[0]].op_type == "Softmax", "nothing quantizes what enters the sum"
    expected, coarse = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"input": batches[0]})[0]
        for name in ("model.onnx", "int8.onnx")
    )
    assert np.abs(expected - coarse).mean() < 0.03 * np.abs(expected).mean()


def test_tensorrt_reads_eight_signed_bits_around_zero_and_no_others(tmp_path):
    weights = numpy_helper.from_array(np.ones((2, 4, 1, 1), np.float32), "weights")
    bias = numpy_helper.from_array(np.ones(2, np.float32), "bias")
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4, 8, 8])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2, 8, 8])
    node = helper.make_node("Conv", ["input", "weights", "bias"], ["output"])
    graph = helper.make_graph([node], "network", [image], [output], [weights, bias])
    path, made = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    quantize(path, made, [np.random.default_rng(0).random((8, 4, 8, 8), np.float32)], symmetric=True)
    graph = onnx.load(made).graph
    arrays = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    scaled = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    points = [arrays[node.input[2]] for node in scaled]
    assert points and all(point.dtype == np.int8 and not point.any() for point in points)


def test_calibration_fills_batches_of_any_size():
    """TensorRT's engines take batches of one size, which may be larger than what there is to calibrate with."""
    samples = np.arange(5, dtype=np.float32)[:, None]
    assert [batch[:, 0].tolist() for batch in fill([samples[:3], samples[3:]], 2)] == [[0, 1], [2, 3]]
    assert [batch[:, 0].tolist() for batch in fill([samples], 7)] == [[0, 1, 2, 3, 4, 0, 1]]


def test_there_must_be_something_to_quantize(tmp_path):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "network", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="there is nothing to quantize"):
        quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx", [np.zeros((1, 4), np.float32)])
    assert not (tmp_path / "int8.onnx").exists()


def test_a_winner_in_int8_of_openvino_can_be_opened(tmp_path):
    card = Card("classification", "images", ("a", "b"), {"shape": [4, 8, 8]}, {"kind": "classes"})
    model = write_network(tmp_path / "model.onnx")
    batches = [np.random.default_rng(seed).standard_normal((8, 4, 8, 8), dtype=np.float32) for seed in range(4)]
    convert(model, card, tmp_path / "any", "openvino", "int8", batches)
    shutil.copytree(tmp_path / "any", tmp_path / "fixed")
    set_runtime(tmp_path / "fixed", batch=3)
    keep(Candidate(tmp_path / "fixed", "openvino", "int8", threads=1, batch=3), tmp_path / "kept")
    runtime = Predictor.open(tmp_path / "kept").card.runtime
    assert (runtime["threads"], runtime["batch"]) == (1, 3)
    outputs = [Predictor.open(tmp_path / name).compute(batches[0]) for name in ("any", "kept")]
    np.testing.assert_allclose(*outputs, rtol=1e-4)


@pytest.mark.parametrize("text", ["320x240", "7x7", "-8x-8", "320x320x320", "axa", ""])
def test_sizes_are_squares(text):
    assert read_size("320x320") == read_size("320") == 320
    with pytest.raises(UserError, match="is not a square such as 320x320"):
        read_size(text)


@pytest.mark.parametrize("text", ["0", "1,,2", "-1", "x", "2000", ""])
def test_batches_are_numbers(text):
    assert read_batches("1,8") == [1, 8]
    with pytest.raises(UserError, match="must be a number from 1 to 1024"):
        read_batches(text)
