"""Kernels of ONNX files are turned to Keras' order of axes and named after VGG-16's layers where they follow them."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from planar3d.errors import WeightsError
from planar3d.transfer.array_files import read_directly

onnx = pytest.importorskip("onnx")


def write(path, channels, names, bias=True):
    """A chain of 3×3 convolutions, kernels stored (cout, cin, kh, kw); returns them as Keras has them."""
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, tensors, kernels = [], [], []
    for i, name in enumerate(names):
        kernel = rng.normal(size=(channels[i + 1], channels[i], 3, 3)).astype(np.float32)
        tensors.append(numpy_helper.from_array(kernel, f"{name}.weight"))
        if bias:
            tensors.append(numpy_helper.from_array(np.full(channels[i + 1], i, np.float32), f"{name}.bias"))
        inputs = [f"x{i}", f"{name}.weight", *([f"{name}.bias"] if bias else [])]
        nodes.append(helper.make_node("Conv", inputs, [f"x{i + 1}"]))
        kernels.append(kernel.transpose(2, 3, 1, 0))
    # Initializers stand in another order than the graph uses them, as exporters write them.
    graph = helper.make_graph(nodes, "g", [], [], tensors[::-1])
    onnx.save(helper.make_model(graph), path)
    return kernels


def test_convolutions_that_follow_vgg16_get_its_names_in_the_order_of_the_graph(tmp_path):
    kernels = write(tmp_path / "vgg.onnx", (3, 64, 64, 128), ("c", "a", "b"))
    found = read_directly(tmp_path / "vgg.onnx")
    for i, (layer, kernel) in enumerate(zip(("block1_conv1", "block1_conv2", "block2_conv1"), kernels, strict=True)):
        assert_array_equal(found[f"{layer}/kernel"], kernel)
        assert_array_equal(found[f"{layer}/bias"], np.full(kernel.shape[-1], i))
    assert len(found) == 6


def test_convolutions_with_normalization_are_not_vgg16s_whatever_their_shapes(tmp_path):
    """VGG-16 with batch normalization has the same kernels; without it they would give other features in silence."""
    from onnx import helper

    write(tmp_path / "vgg_bn.onnx", (3, 64, 64), ("features.0", "features.3"))
    model = onnx.load(tmp_path / "vgg_bn.onnx")
    model.graph.node.append(helper.make_node("BatchNormalization", ["x1", "gamma", "beta", "mean", "var"], ["y"]))
    onnx.save(model, tmp_path / "vgg_bn.onnx")
    found = read_directly(tmp_path / "vgg_bn.onnx")
    assert list(found) == ["features.0/kernel", "features.0/bias", "features.3/kernel", "features.3/bias"]


def test_other_convolutions_keep_their_initializers_names(tmp_path):
    kernels = write(tmp_path / "other.onnx", (3, 64, 32), ("layer1.conv", "head"), bias=False)
    found = read_directly(tmp_path / "other.onnx")
    assert list(found) == ["layer1.conv/kernel", "head/kernel"]
    assert_array_equal(found["head/kernel"], kernels[1])


def test_kernels_are_read_wherever_the_graph_holds_them(tmp_path):
    from onnx import TensorProto, helper

    kernel = np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3)
    half = helper.make_tensor("half", TensorProto.BFLOAT16, kernel.shape, kernel.ravel())
    constant = helper.make_node("Constant", [], ["b"], value=helper.make_tensor("", 1, kernel.shape, kernel.ravel()))
    again = helper.make_node("Identity", ["b"], ["c"])
    convolutions = [
        helper.make_node("Conv", [f"x{i}", name], [f"x{i + 1}"]) for i, name in enumerate(("half", "b", "c"))
    ]
    graph = helper.make_graph([constant, again, *convolutions], "g", [], [], [half])
    onnx.save(helper.make_model(graph), tmp_path / "a.onnx")
    found = read_directly(tmp_path / "a.onnx")
    assert list(found) == ["half/kernel", "b/kernel", "c/kernel"] and found["half/kernel"].dtype == np.float32
    for array in found.values():
        assert_array_equal(array, kernel.transpose(2, 3, 1, 0))


def test_weights_in_a_file_beside_are_refused(tmp_path):
    path = tmp_path / "apart.onnx"
    write(path, (3, 64), ("c",))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="beside.bin", size_threshold=0)
    with pytest.raises(WeightsError, match=r"apart\.onnx: c\.weight is stored in another .*external_data=False"):
        read_directly(path)


def test_a_graph_without_convolutions_is_refused(tmp_path):
    write(tmp_path / "none.onnx", (3,), ())
    with pytest.raises(WeightsError, match=r"none\.onnx has no weights"):
        read_directly(tmp_path / "none.onnx")
