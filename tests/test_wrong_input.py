"""Wrong arguments of the Python interface are told in a sentence, and give no wrong result."""

import dataclasses

import keras
import nibabel as nib
import numpy as np
import pytest

import planar3d as p3
from planar3d.errors import (
    ConversionError,
    DatasetError,
    FoldsError,
    Planar3DError,
    RecipeError,
    ScanError,
    WeightsError,
)

MASK = np.zeros((6, 6, 6))
MASK[2:4, 2:4, 2:4] = 1
GREY = MASK + np.arange(6)
NAN = np.full((20, 20, 20), np.nan, "float32")
MM = (1, 1, 1)
KERNEL = np.zeros((3, 3, 1, 1), "float32")
NETWORK = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, name="conv")])
VOLUMES = keras.Sequential([keras.Input((16, 20, 20, 1)), keras.layers.Conv3D(1, 1)])
ONE = p3.PAPER.changed(channels=1)
GROUPS = dict.fromkeys("abcde", "x")


def predicted(voxels, recipe=ONE):
    return p3.predict_volume(VOLUMES, voxels, recipe, "windowed")


def scan(voxels):
    return p3.Scan(voxels, nib.Nifti1Image(voxels, np.eye(4)).header)


WRONG = {
    "NaN in a mask": (
        lambda: p3.score_scan(MASK * np.nan, MASK, MM),
        ScanError,
        "reference has values from nan to nan",
    ),
    "probabilities as a mask": (
        lambda: p3.score_scan(MASK, MASK * 0.7, MM),
        ScanError,
        "prediction has .* 0 to 0.7; a",
    ),
    "labels as a mask": (lambda: p3.score_scan(MASK, MASK * 2, MM), ScanError, "mask of {0, 1} is needed.*mask == 1"),
    "text as a mask": (lambda: p3.score_scan(MASK.astype(str), MASK, MM), ScanError, "reference has the type <U"),
    "empty masks": (lambda: p3.score_scan(MASK[:0], MASK[:0], MM), ScanError, "two volumes on one grid"),
    "masks with channels": (
        lambda: p3.score_scan(MASK[..., None], MASK[..., None], MM),
        ScanError,
        r"two volumes on one grid are needed\. Give each as \(i, j, k\): mask\[\.\.\., 0\]",
    ),
    "spacing in words": (
        lambda: p3.score_scan(MASK, MASK, "1 mm"),
        ScanError,
        "spacing is '1 mm'; three positive lengths",
    ),
    "a scan as a mask": (
        lambda: p3.score_scan(MASK, scan(MASK), MM),
        ScanError,
        r"^The prediction must be an array \(i, j, k\), as a scan's voxels; got Scan\.$",
    ),
    "a scan as a spacing": (lambda: p3.score_scan(MASK, MASK, scan(MASK)), ScanError, r"is Scan\(vox.{,25}; three pos"),
    "voxels to be segmented": (
        lambda: p3.segment(MASK, "ms-flair-open"),
        ScanError,
        r"got ndarray\. .*Scan\(voxels, h",
    ),
    "a mask to be segmented": (
        lambda: p3.segment(scan(MASK), "ms-flair-open"),
        ScanError,
        "has only the values 0, 1, so it is a mask or label map; name the scan itself",
    ),
    "a label map to be segmented": (
        lambda: p3.segment(scan(MASK * np.arange(6)), "ms-flair-open"),
        ScanError,
        "has only the values 0, 2, 3, so it is a mask or label map; name the scan itself",
    ),
    "a NaN scan to be segmented": (lambda: p3.segment(scan(NAN), "ms-flair-open"), ScanError, "NaN or infinity in"),
    "a list as a scan": (lambda: p3.Scan(MASK.tolist(), scan(MASK).header), ScanError, "got list and Nifti1Header"),
    "texts as a scan": (lambda: p3.Scan(MASK.astype(object), scan(MASK).header), ScanError, "an array of numbers and"),
    "an affine as a header": (
        lambda: p3.Scan(MASK, np.eye(4)),
        ScanError,
        r"Image\(voxels, affine\).*got ndarray and ndarray",
    ),
    "prepared voxels without images": (
        lambda: predicted(NAN),
        ValueError,
        r"shape \(20, 20, 20\).*voxels\[\.\.\., None",
    ),
    "no prepared voxels": (
        lambda: predicted(NAN[:0, ..., None]),
        ValueError,
        r"shape \(0, 20, 20, 1\), .* are needed;",
    ),
    "prepared voxels of three channels": (
        lambda: predicted(np.zeros((20, 20, 20, 3), "uint8")),
        ValueError,
        r"have 3 images along their last axis, but 1 is needed",
    ),
    "prepared voxels of NaN": (lambda: predicted(NAN[..., None]), ValueError, "voxels have NaN or infinity; replace"),
    "a raw scan's voxels for prepared ones": (
        lambda: predicted(np.full((20, 20, 20, 1), 1800, "int16")),
        ValueError,
        "from 1800 to 1800; grey levels from 0 to 255 are needed, as planar3d.prepare returns",
    ),
    "standardized voxels for grey levels": (
        lambda: predicted(np.full((20, 20, 20, 1), -1.5, "float32")),
        ValueError,
        "from -1.5 to -1.5; grey levels from 0 to 255",
    ),
    "a mask for grey levels": (
        lambda: predicted(np.ones((20, 20, 20, 1), bool)),
        ValueError,
        "from 1 to 1; grey levels from 0 to 255",
    ),
    "voxels from 0 to 1 for grey levels": (
        lambda: predicted(np.linspace(0, 1, 8000).reshape(20, 20, 20, 1)),
        ValueError,
        "from 0 to 1; grey levels from 0 to 255",
    ),
    "a recipe's name for a prediction": (lambda: predicted(MASK, "paper"), RecipeError, "recipe='paper': a Recipe is"),
    "no file's name": (lambda: p3.read_scan(None), ScanError, "A scan is a file's name .* got NoneType"),
    "no data set": (lambda: p3.find_cases(None), DatasetError, "A data set must be given as a string or a Path; got"),
    "no place for a phantom": (
        lambda: p3.write_phantom(5),
        DatasetError,
        "phantom's folder must be given as .*; got int",
    ),
    "no place for a scan": (
        lambda: scan(MASK).save(None),
        ScanError,
        "The file to write must be given as .*; got NoneType",
    ),
    "a number as a weights file": (
        lambda: p3.load_weights(NETWORK, 5),
        WeightsError,
        "weights file must be .*; got int",
    ),
    "no file of torch": (
        lambda: p3.load_torch(NETWORK, None, "vgg16"),
        WeightsError,
        "A weights file must be given as a string or a Path; got NoneType",
    ),
    "no place for an export": (lambda: p3.export_network(VOLUMES, 1.5, []), Planar3DError, "to export to .* got float"),
    "no place for a converted network": (
        lambda: p3.save_converted(p3.convert(NETWORK), None, provenance="x", licence="y"),
        ConversionError,
        "The file to write must be given as .* got NoneType",
    ),
    "a list of known files": (lambda: p3.fetch_known(["vgg16"]), WeightsError, r"\['vgg16'\] is not a known weights"),
    "no folder of known files": (
        lambda: p3.fetch_known("resnet34-b627a593.pth", 5),
        WeightsError,
        "A folder must be given as .* got int",
    ),
    "a NaN scan": (lambda: p3.prepare(scan(NAN)), ScanError, "The scan has NaN or infinity in 8,000 voxels"),
    "a scan of one value": (lambda: p3.prepare(scan(0 * MASK + 3)), ScanError, "value 3 everywhere; a scan with c"),
    "a slice": (lambda: p3.prepare(scan(NAN[0])), ScanError, r"The scan is 2-D \(20, 20\)"),
    "no voxels": (lambda: p3.prepare(scan(NAN[:0])), ScanError, r"The scan is 3-D \(0, 20, 20\)"),
    "voxels to be prepared": (lambda: p3.prepare(MASK), ScanError, "A planar3d.Scan is needed.*got ndarray"),
    "a recipe's name": (lambda: p3.prepare(scan(NAN), "paper"), RecipeError, "recipe='paper': a Recipe is needed"),
    "one axis": (lambda: p3.compose(np.zeros(5)), ValueError, r"\(windows, depth, rows, cols\) are needed.*\(5,\)"),
    "no windows": (lambda: p3.compose(np.zeros((0, 16, 4))), ValueError, r"are needed; got the shape \(0, 16, 4\)"),
    "a stride in text": (lambda: p3.compose(np.zeros((2, 16, 4)), "8"), ValueError, "stride='8': whole numbers"),
    "half a slice": (lambda: p3.compose(np.zeros((2, 16, 4)), 8, 2.5), ValueError, "slices=2.5, but 2 windows"),
    "no volume": (lambda: p3.cut_windows(None), ValueError, r"A volume \(slices, rows, cols\) is needed"),
    "a depth of 2.0": (lambda: p3.cut_windows(MASK, 2.0, 2), ValueError, "depth=2.0, stride=2: whole numbers"),
    "a list of groups": (lambda: p3.group_folds(["a", "b"]), FoldsError, "groups: a dictionary of names by scan"),
    "numbers as groups": (
        lambda: p3.group_folds({"a": 1, "b": 2}),
        FoldsError,
        "groups: a dictionary of names by scan",
    ),
    "unknown patients": (lambda: p3.group_folds(GROUPS, patients={"a": "p"}), FoldsError, "patients lacks b, c, d, e"),
    "3 folds of 2": (lambda: p3.group_folds({"a": "1", "b": "1"}, 3), FoldsError, r"2 patients\. Choose 2 folds\."),
    "groups of one": (
        lambda: p3.group_folds({"a": "1", "b": "2"}),
        FoldsError,
        "Join groups to have 2 patients in one",
    ),
    "folds in text": (lambda: p3.group_folds(GROUPS, "3"), FoldsError, "folds cannot be '3': the largest group has 5"),
    "numbers as names": (lambda: p3.msseg_folds([1, 2]), FoldsError, "five scans of each center"),
    "alpha in text": (lambda: p3.map_kernel(KERNEL, "scale", 3, alpha="abc"), ValueError, "needs 3 positive factors"),
    "an axis of 1.0": (lambda: p3.map_kernel(KERNEL, axis=1.0), ValueError, "axis=1.0: depth is 0"),
    "a list of mappings": (lambda: p3.map_kernel(KERNEL, ["zero"]), ValueError, r"mapping=\['zero'\] is unknown"),
    "a network of one channel for three": (
        lambda: p3.predictor(VOLUMES),
        RecipeError,
        r"takes .*20, 1\)\] .* paper needs a network from \(batch, 16, rows, cols, 3\) to",
    ),
    "a network of smaller outputs": (
        lambda: p3.predictor(p3.convert(NETWORK, depth=16), ONE, "windowed"),
        RecipeError,
        r"gives \[\(None, 16, 6, 6, 1\)\], but the recipe",
    ),
    "a network of whole numbers": (
        lambda: p3.predictor(keras.Sequential([keras.Input((16, 8, 8, 3), dtype="uint8"), keras.layers.Conv3D(1, 1)])),
        RecipeError,
        "takes values of type uint8, but prepared scans have float32",
    ),
    "a model's name": (
        lambda: p3.predictor("ms-flair-open"),
        ConversionError,
        "keras.Model is needed; got str.*load_n",
    ),
    "no batch": (lambda: p3.predictor(None, batch_size=0), RecipeError, "batch_size=0: a whole number of at least 1"),
    "a file to be exported": (lambda: p3.export_network("a.h5", "out", []), ConversionError, "needed; got str"),
    "torch's weights for no network": (lambda: p3.load_torch(None, "a.pth"), ConversionError, "needed; got NoneType"),
    "arrays for no network": (lambda: p3.transplant(None, {}), ConversionError, "needed; got NoneType"),
    "a file as arrays": (lambda: p3.transplant(NETWORK, "a.h5"), WeightsError, "got str. load_weights reads a file"),
    "complex weights": (
        lambda: p3.transplant(NETWORK, {"conv/kernel": KERNEL + 1j}),
        WeightsError,
        "conv/kernel has complex64 values, so nothing was loaded; give an array of real numbers",
    ),
    "texts as weights": (
        lambda: p3.transplant(NETWORK, {"conv/kernel": KERNEL.astype(str)}),
        WeightsError,
        "conv/kernel has <U32 values, so nothing was loaded; give an array of real numbers",
    ),
    "no weights": (lambda: p3.load_network(None), WeightsError, "weights file, or the name of .* got NoneType"),
    "another recipe's name": (lambda: p3.Segmenter("ms-flair-open", "paper"), RecipeError, "recipe='paper': a Recipe"),
    "another recipe's name for a network": (
        lambda: p3.Segmenter((VOLUMES, ONE), "paper"),
        RecipeError,
        "recipe='paper': a Recipe",
    ),
    "voxels for a prepared scan": (
        lambda: p3.predict_prepared(lambda voxels, progress: voxels, MASK, ONE),
        ScanError,
        r"prepared by planar3d\.prepare is needed; got ndarray",
    ),
    "what a segmenter prepared for a mask": (
        lambda: p3.native_mask(MASK, [p3.prepare(scan(GREY), ONE)], ONE),
        ScanError,
        "needed; got list. Segmenter.prepare makes a list of them, one for each model",
    ),
    "one prepared scan for two models": (
        lambda: p3.Segmenter([(VOLUMES, ONE)] * 2).predict([p3.prepare(scan(GREY), ONE)]),
        ScanError,
        r"of 2 prepared scans, one for each model; got \['Prepared'\]",
    ),
    "a prepared scan for a segmenter": (
        lambda: p3.Segmenter((VOLUMES, ONE)).predict(p3.prepare(scan(GREY), ONE)),
        ScanError,
        "of 1 prepared scan, one for each model; got Prepared",
    ),
    "a recipe's name for a mask": (
        lambda: p3.native_mask(MASK, p3.prepare(scan(GREY), ONE), "paper"),
        RecipeError,
        "recipe='paper': a Recipe",
    ),
    "no segmenter": (lambda: p3.segment_case("a.nii", "ms-flair-open"), WeightsError, "Segmenter.* is needed; got str"),
    "no licence": (
        lambda: p3.save_converted(p3.convert(NETWORK), "a.keras", provenance="x", licence=None),
        ConversionError,
        "Name the source",
    ),
    "no shape": (
        lambda: p3.AlbuNet(None, encoder_weights=None),
        ValueError,
        r"=None: \(depth, rows, cols, channels\) is",
    ),
    "channels of no number": (
        lambda: p3.PlanarVGG16((16, 32, 32, None), None),
        ValueError,
        r"None\): \(depth, rows, cols, chan",
    ),
    "no shape of slices": (lambda: p3.OmniaNet(None, encoder_weights=None), ValueError, r"=None: \(depth, rows, cols"),
    "no depth of kernels": (lambda: p3.PlanarResUNet(encoder_depth=None), ValueError, "encoder_depth=None: an odd n"),
    "half a channel": (
        lambda: p3.PlanarVGG16((16, 32, 32, 3.5), None),
        ValueError,
        r"3\.5\): \(depth, rows, cols, chan",
    ),
    "too few slices to pool": (
        lambda: p3.PlanarVGG16((8, 32, 32, 3), None),
        ValueError,
        "depth is 8, but the four poolings need at least 16; depth_pooling=False keeps",
    ),
    "too few rows to pool": (lambda: p3.PlanarVGG16((1, 8, 32, 3), None, False), ValueError, r"rows is 8, .* 16\.$"),
    "NaN as a probability": (lambda: p3.threshold([0.5, np.nan]), ValueError, "from nan to nan; numbers from 0 to 1"),
    "grey levels as probabilities": (lambda: p3.threshold(np.uint8([0, 200])), ValueError, "from 0 to 200; numbers"),
    "a negative threshold": (lambda: p3.threshold([0.5], -3), ValueError, "of_256=-3: a threshold from 0 to 256"),
    "a probability as a threshold": (lambda: p3.threshold([0.5], 0.5), ValueError, r"of_256=0\.5: .*128 is a prob"),
    "a NaN threshold": (lambda: p3.threshold([0.5], np.nan, "released"), ValueError, "of_256=nan: a threshold from"),
    "a threshold in text": (lambda: p3.threshold([0.5], "16"), ValueError, "of_256='16': a threshold from"),
    "one number as a shape": (
        lambda: p3.build_network("dx-net", 3),
        RecipeError,
        r"Network dx-net: input_shape=3: \(depth, rows",
    ),
    "an unknown activation": (
        lambda: p3.AlbuNet(encoder_weights=None, activation="relu"),
        ValueError,
        "activation='relu' is unknown; choose one of: 'sigmoid', 'softmax'",
    ),
    "no output": (
        lambda: p3.PlanarResUNet((16, 32, 32, 3), encoder_weights=None, outputs=0),
        ValueError,
        "output channels=0: a whole number of at least 1",
    ),
    "negative filters": (
        lambda: p3.PlanarResUNet(encoder_weights=None, decoder_filters=(8, 8, 8, -8)),
        RecipeError,
        r"decoder_filters is \(8, 8, 8, -8\), but numbers greater than 0",
    ),
    "one number for all levels": (
        lambda: p3.PlanarResUNet(encoder_weights=None, decoder_filters=8),
        RecipeError,
        "decoder_filters=8: a list of values",
    ),
    "no filters in the bridge": (
        lambda: p3.PlanarResUNet(encoder_weights=None, bridge_filters=0),
        RecipeError,
        "bridge_filters is 0, but it must be greater",
    ),
    "an unknown norm": (
        lambda: p3.DXNet(norm="layer"),
        ValueError,
        "norm='layer' is unknown; choose one of: 'instance', 'batch'",
    ),
    "an unknown range": (
        lambda: p3.EfficientEmbedding(encoder_range="grey"),
        RecipeError,
        "encoder_range='grey' is unknown; choose one of: 'unit', 'grey levels'",
    ),
    "levels without filters": (lambda: p3.DSNet(filters=(16, 32)), RecipeError, r"filters=\(16, 32\).* equal lengths"),
    "negative filters of levels": (lambda: p3.DSNet(filters=(16, 32, 48, -1)), RecipeError, "filters is .* greater th"),
    "a factor in words": (
        lambda: p3.EfficientEmbedding(factors=(3, "x", 4)),
        RecipeError,
        "factors='x': a whole number is needed",
    ),
    "half a filter": (lambda: p3.DSNet(filters=(16, 32, 48, 9.5)), RecipeError, r"filters=9\.5: a whole number is"),
    "a volume for images": (
        lambda: p3.ResNet18((16, 32, 32, 3)),
        ValueError,
        r"3\): \(rows, cols, channels\) is needed",
    ),
    "unknown channels of images": (
        lambda: p3.EfficientNetLite0((32, 32, None)),
        ValueError,
        r"None\): \(rows, cols, channels\) is needed",
    ),
    "no classes": (lambda: p3.ResNet50((32, 32, 3), classes=0), ValueError, "classes=0: a whole number of at least 1"),
    "no slices": (
        lambda: p3.AlbuNet((0, 32, 32, 3), encoder_weights=None),
        ValueError,
        "channels. is needed, of positive sizes",
    ),
    "a missing encoder's weights": (
        lambda: p3.AlbuNet((4, 32, 32, 3), encoder_weights="nowhere.h5"),
        WeightsError,
        r"^nowhere\.h5 does not exist; name a file of the encoder's weights, or 'imagenet'\.$",
    ),
    "a seed of 1.5": (
        lambda: p3.write_phantom("none", seed=1.5),
        DatasetError,
        "seed=1.5: a whole number of at least 0",
    ),
    "a negative seed": (lambda: p3.write_phantom("none", seed=-1), DatasetError, "seed=-1: a whole number of at least"),
    "no scans": (
        lambda: p3.write_phantom("none", scans_per_center=0),
        DatasetError,
        "scans_per_center=0: a whole number of at least 1",
    ),
    "a reduction in text": (
        lambda: p3.write_phantom("none", reduction="4"),
        DatasetError,
        "reduction='4': a number from",
    ),
    "no layout": (lambda: p3.write_phantom("none", layout=None), DatasetError, "has no layout None; choose one"),
    "an empty path": (lambda: p3.find_cases(""), DatasetError, "as a string or a Path; got an empty string"),
    "no names": (lambda: p3.msseg_folds(None), FoldsError, "named by the first two digits; found none"),
    "a section in another's place": (
        lambda: dataclasses.replace(ONE, tiles=ONE.training),
        RecipeError,
        "tiles: a section of the kind Tiles is needed; got Training",
    ),
    "an empty model's name": (lambda: p3.Segmenter(""), WeightsError, "^An empty name does not exist; name a weights"),
    "no probabilities": (lambda: p3.threshold(None), ValueError, "probabilities must be an array of numbers; got None"),
    "text as probabilities": (lambda: p3.threshold(["a"]), ValueError, "must be an array of numbers; got of type <U1"),
    "a highest probability of 2": (
        lambda: p3.threshold([0.5], rule="released", highest=2),
        ValueError,
        "highest=2: a number from 0 to 1",
    ),
    "a size of 0": (lambda: p3.prepare(scan(NAN), ONE, 0), RecipeError, "size is 0, but a multiple of 16"),
    "no images": (lambda: p3.prepare({}, ONE), ScanError, "flair is missing; given: none"),
    "a prepared scan for its voxels": (
        lambda: predicted(p3.prepare(scan(GREY), ONE)),
        ValueError,
        "voxels must be an array of numbers; got Prepared",
    ),
    "a network for a predictor": (
        lambda: p3.predict_prepared(VOLUMES, p3.prepare(scan(GREY), ONE), ONE),
        WeightsError,
        r"A predictor is needed, as from planar3d.predictor\(network, recipe\); got Sequential",
    ),
    "probabilities of two outputs for one": (
        lambda: p3.native_mask(np.zeros((256, 256, 256, 2)), p3.prepare(scan(GREY), ONE), ONE),
        ValueError,
        r"shape \(256, 256, 256, 2\), but \(256, 256, 256\) is needed",
    ),
    "a network without its recipe": (
        lambda: p3.Segmenter((VOLUMES, None)),
        WeightsError,
        r"or a pair \(network, recipe\); got Sequential",
    ),
    "a factor of 0": (lambda: p3.EfficientEmbedding(factors=(3, 0, 4)), RecipeError, "factors is .* greater than 0"),
}


@pytest.mark.parametrize(("call", "error", "says"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_refused_with_what_is_needed(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_numpy_numbers_are_numbers(tmp_path):
    names = p3.write_phantom(
        tmp_path, seed=np.int64(3), scans_per_center=np.int32(1), reduction=np.float32(16), layout="camus"
    )
    assert p3.write_phantom(tmp_path, seed=3, scans_per_center=1, reduction=16, layout="camus") == names


def test_a_network_and_its_recipe_may_be_given_as_a_list():
    assert p3.Segmenter([VOLUMES, ONE]).models == p3.Segmenter([[VOLUMES, ONE]]).models == [VOLUMES]


def test_filters_are_whole_numbers_however_they_are_written():
    narrow = {"encoder_weights": None, "decoder_filters": (8, 8, "8", 8.0), "bridge_filters": 8.0}
    network = p3.PlanarResUNet((16, 32, 32, 3), **narrow)
    assert network.get_layer("conv52").kernel.shape[-1] == 8
