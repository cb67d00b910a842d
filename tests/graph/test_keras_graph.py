"""What planar3d takes of Keras beyond its public interface is there, and is what it was."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import planar3d
from planar3d.conversion.held_objects import cloned, rebuilt
from planar3d.errors import ConversionError
from planar3d.graph import keras_graph

PRIVATE = r"keras\.src|\._(keras_history|nodes_by_depth|inbound_nodes|run_through_graph|functional\b|flatten_layers)"
CHANGED = f"Keras {keras.__version__} changed {{}}: adapt planar3d/graph/keras_graph.py, or lower the bound on keras."


@pytest.fixture
def network():
    """A block used twice, an operation, and an addition, which takes what it is given in two places."""
    within = keras.Input((8, 8, 3))
    block = keras.Model(within, layers.Conv2D(3, 3, padding="same", name="conv")(within), name="block")
    x = keras.Input((8, 8, 3), name="image")
    y = keras.ops.relu(block(block(x)))
    return keras.Model(x, layers.Add(name="sum")([x, y]))


def test_no_other_file_touches_private_parts():
    root = Path(planar3d.__file__).parent
    found = {str(p.relative_to(root)) for p in root.rglob("*.py") if re.search(PRIVATE, p.read_text())}
    assert found == {"graph/keras_graph.py"}


def test_a_network_s_nodes_are_recorded_as_before(network):
    nodes = list(keras_graph.nodes_of(network))
    assert [node.operation.name for node in nodes if isinstance(node.operation, layers.Layer)] == [
        "block", "block", "sum"
    ], CHANGED.format("the nodes of a functional model, by depth")  # fmt: skip
    for node in nodes:
        missing = {"operation", "input_tensors", "outputs", "arguments"} - set(dir(node))
        assert not missing, CHANGED.format(f"nodes, which have no {missing}")
    assert nodes[-1].input_tensors[0] is network.inputs[0] and nodes[-1].outputs[0] is network.outputs[0]
    assert nodes[-1].arguments.args[0][0] is network.inputs[0], CHANGED.format("the arguments of a node")


def test_arguments_are_filled_in_whatever_stands_for_a_tensor(network):
    *_, last = keras_graph.nodes_of(network)
    assert keras_graph.arguments_with(last, ["a", "b"]) == ((["a", "b"],), {}), CHANGED.format("Node.arguments.fill_in")
    (again,) = keras_graph.applied_again(last, [keras.KerasTensor((2, 4, 3))] * 2)
    assert again.shape == (2, 4, 3)


def test_values_pass_through_nested_networks_and_leave_their_graphs_alone(network):
    nodes = [len(layer._inbound_nodes) for layer in network.layers]
    passed = []

    def visit(name, node, taken):
        passed.append(name)
        return ["+".join(taken) if len(taken) > 1 else f"{name}({taken[0]})"]

    assert keras_graph.pass_through(network, ["x"], visit) == [f"x+{passed[2]}(block/conv(block/conv(x)))"]
    assert passed[:2] == ["block/conv"] * 2 and passed[3] == "sum"
    assert nodes == [len(layer._inbound_nodes) for layer in network.layers]


def test_a_nested_network_that_is_called_by_name_takes_its_inputs_in_its_own_order():
    skip, deep = keras.Input((4,), name="skip"), keras.Input((4,), name="deep")
    block = keras.Model([skip, deep], layers.Subtract(name="minus")([skip, deep]), name="block")
    x, y = keras.Input((4,)), keras.Input((4,))
    for given in ([x, y], {"deep": y, "skip": x, "more": x}, {"skip": x, "deep": y}):
        network = keras.Model([x, y], block(given))
        passed = keras_graph.pass_through(network, ["x", "y"], lambda name, node, taken: [f"{taken[0]} - {taken[1]}"])
        assert passed == ["x - y"]
        values = [np.float32([[5, 5, 5, 5]]), np.float32([[2, 2, 2, 2]])]
        np.testing.assert_array_equal(network.predict_on_batch(values), [[3] * 4])


class Tripled(layers.Dense):
    def __call__(self, *args, **kwargs):
        return 3 * super().__call__(*args, **kwargs)


@pytest.mark.parametrize("nested", [False, True])
def test_copies_of_a_network_call_its_layers_as_often_as_it_does(nested):
    x = keras.Input((4,))
    network = keras.Model(x, Tripled(2, name="tripled")(x))
    if nested:
        network = keras.Model(x, network(x))
    given, values = keras.Input((4,)), np.float32([[1, -2, 3, -4]])
    again = keras.Model(given, keras_graph.layers_applied_again(network, [given]))
    for copy in (again, cloned(network, rebuilt)):
        np.testing.assert_allclose(np.ravel(copy(values)), np.ravel(network(values)), rtol=1e-6)


def test_a_sequential_network_is_the_functional_one_in_it():
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert keras_graph.is_graph(sequential)
    graph = keras_graph.as_graph(sequential)
    assert graph is sequential._functional and graph.outputs[0] is sequential.outputs[0], CHANGED.format("Sequential")


def test_a_model_that_computes_by_python_code_has_no_graph(network):
    class Doubled(type(network)):
        def call(self, inputs):
            return 2 * super().call(inputs)

    class DoubledInARow(keras.Sequential):
        def call(self, inputs):
            return 2 * super().call(inputs)

    assert keras_graph.as_graph(network) is network
    for own in (Doubled(network.inputs, network.outputs), DoubledInARow([keras.Input((4,)), layers.Dense(2)])):
        with pytest.raises(ConversionError, match="its call is Python code"):
            keras_graph.as_graph(own)
    with pytest.raises(ConversionError, match=r"A keras\.Model is needed; got Dense"):
        keras_graph.as_graph(layers.Dense(2))


def test_a_tensor_knows_what_gives_it(network):
    assert keras_graph.name_of(network.outputs[0]) == "sum", CHANGED.format("KerasTensor._keras_history")
    assert keras_graph.name_of(network.inputs[0]) == "image"


def test_layers_are_found_where_others_hold_them(network):
    x = keras.Input((5, 8, 8, 3))
    held = keras.Model(x, layers.TimeDistributed(network)(x))
    assert [layer.name for layer in keras_graph.layers_within(held, layers.Conv2D)] == ["conv"], CHANGED.format(
        "the layers that a layer holds"
    )
    assert keras_graph.layers_within(held)[0] is held


def test_operations_are_told_by_the_module_of_keras_ops():
    x = keras.Input((4,))
    kinds = [keras_graph.operation_kind(node.operation) for node in keras_graph.nodes_of(keras.Model(x, abs(x) + 1.0))]
    assert kinds == ["Absolute", "Add"], CHANGED.format("the classes of keras.ops")
    assert keras_graph.operation_kind(layers.Add()) == ""


def test_operations_are_made_with_the_arguments_that_rules_give():
    x = keras.Input((4, 6, 3))
    assert keras_graph.Moveaxis(1, 2, name="moved")(x).shape == (None, 6, 4, 3)
    for kind in (keras_graph.Mean, keras_graph.Max):
        assert kind(axis=[1, 2], keepdims=True, name="pooled")(x).shape == (None, 1, 1, 3)
    assert keras_graph.ExpandDims(1)(x).shape == (None, 1, 4, 6, 3)


def test_layers_that_this_thread_builds_start_with_zeros_where_weights_follow():
    def built(seed=0):
        keras.utils.set_random_seed(seed)
        layer = layers.Conv3D(4, 3)
        layer.build((None, 8, 8, 8, 2))
        return np.asarray(layer.kernel)

    expected = built()
    with keras_graph.without_random_weights():
        with keras_graph.without_random_weights():
            assert not built().any()
        assert not built().any()
        with ThreadPoolExecutor(1) as other:
            assert other.submit(built).result().any()
    np.testing.assert_array_equal(built(), expected)
