"""A choice that changes nothing is not passed over: patterns of mappings, and types of counterparts."""

import keras
import pytest
from flat_networks import network_of
from keras import layers

from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError


def flat():
    image = keras.Input((None, None, 4))
    inner = keras.Model(image, layers.Conv2D(4, 3, padding="same", name="first")(image), name="backbone")
    return network_of(
        layers.Conv2D(4, 3, padding="same", name="block1_conv1"),
        layers.Conv2D(4, 3, padding="same", name="block1_conv2"),
        layers.MaxPooling2D(name="pool1"),
        inner,
        layers.Dense(3, name="scores"),
    )


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"blokc1_*": "zero"}, r"'blokc1_\*' has no effect: .*such as block1_conv"),
        ({"block1_*": "zero", "firts": "zero"}, r"'firts' has no effect: .*such as .*backbone/first"),
        (
            {"block1_conv1": "zero", "nothing_like_it": "average"},
            r"'nothing_like_it' has no effect: .*such as block1_c",
        ),
        ({"decoder/*": "zero"}, r"'decoder/\*' has no effect"),
        ({"Block1_*": "zero"}, r"'Block1_\*' has no effect"),
        ({"": "zero"}, r"'' has no effect"),
        ({"pool*": "zero"}, r"'pool\*' has no effect: it matches no layer with a kernel"),
        ({"scores": KernelMapping("average")}, r"'scores' has no effect: it matches no layer with a kernel"),
        ({"backbone": "zero"}, r"'backbone' has no effect: it matches no layer with a kernel"),
        ({"*": "planar", "block1_*": "zero"}, r"'block1_\*' has no effect: .*block1_conv1.*move it to the front"),
        (
            {"block1_*": "zero", "block1_conv2": "zero"},
            r"'block1_conv2' has no effect: .*earlier patterns match first",
        ),
        ({layers.Conv2D: "zero"}, r"Conv2D.* is not a layer name or pattern"),
        ({3: "zero"}, r"3 is not a layer name or pattern"),
    ],
)
def test_a_pattern_that_changes_nothing_is_refused(mapping, says):
    with pytest.raises(ConversionError, match=says):
        convert(flat(), mapping)


@pytest.mark.parametrize("pattern", ["first", "backbone/first", "backbone/*", "*/first", "f*"])
def test_nested_layers_are_found_by_their_name_with_and_without_the_networks_around_them(pattern):
    volumes = convert(flat(), {pattern: "average"})
    deep = [row.target for row in volumes.transfer_report.rows if row.mapping == "average 3"]
    assert deep == ["backbone/first"]


@pytest.mark.parametrize("mapping", [{}, {"*": "planar"}, {"first": "zero", "*": "average"}, {"?*": "planar"}])
def test_a_pattern_of_all_layers_may_be_left_without_any(mapping):
    convert(flat(), mapping)
    convert(network_of(layers.Conv2D(4, 3, name="first")), mapping)
    convert(
        network_of(layers.MaxPooling2D(name="pool"), layers.Conv2D(4, 3, name="first")), {"f*": "zero", "*": "zero"}
    )


def test_a_counterpart_of_a_type_that_the_network_lacks_is_refused():
    class Scaled(layers.Layer):
        pass

    for kind in (Scaled, layers.Conv3D, layers.Layer):
        with pytest.raises(ConversionError, match=rf"no layer of exactly the type {kind.__name__} .*it has: .*Conv2D"):
            convert(flat(), counterparts={kind: lambda layer: layers.Identity()})


def test_a_layer_may_have_a_name_that_is_a_pattern():
    volumes = convert(network_of(layers.Conv2D(4, 3, name="conv[0]")), {"conv[0]": "average"})
    assert volumes.get_layer("conv[0]").kernel_size == (3, 3, 3)
