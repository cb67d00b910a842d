"""The networks of the table with at most one block where they have several, and with few filters.

What holds of a network's files, training and prediction holds whatever its width and the number of its blocks; the
parameters of the whole ones are compared with their sources.
"""

import pytest

from planar3d.networks import albunet, ds_net, dx_net, efficient_embedding, efficientnet, omnia_net, resnet, vgg16


def narrow_networks(patch: pytest.MonkeyPatch, filters: int = 8) -> None:
    """Have networks built narrow until the patch is undone; their layers are of all kinds that the whole ones have."""
    patch.setattr(vgg16, "BLOCKS", [(filters, convolutions) for _, convolutions in vgg16.BLOCKS])
    stages = [stage._replace(blocks=1, filters=8, expansion=min(2, stage.expansion)) for stage in efficientnet.STAGES]
    stages[1] = stages[1]._replace(blocks=2)  # of which the second is added to its input
    for number in (4, 6):  # which keep the size of the stage before them
        stages[number] = stages[number]._replace(blocks=0)
    patch.setattr(efficientnet, "STAGES", stages)
    patch.setitem(efficientnet.COARSEST, "b0", "block6a_project_bn")
    skips = ("block4a_project_bn", "block3a_project_bn", "block2b_add", "stem_activation")
    patch.setitem(efficientnet.SKIPS, "b0", skips)
    for module, name in ((dx_net, "_FILTERS"), (omnia_net, "_FILTERS"), (ds_net, "_UP_FILTERS")):
        patch.setattr(module, name, (16, 16, 8, 8, 8))
    patch.setattr(efficient_embedding, "_UP_FILTERS", (16, 16, 8, 8))
    patch.setattr(albunet, "ResNet34", _short_resnet)
    patch.setattr(albunet, "_SKIPS", [f"conv{number}_block1_out" for number in (2, 3, 4, 5)])


def _short_resnet(input_shape, include_top, pool):
    whole = resnet._residual
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_residual", lambda x, block, filters, *how: whole(x, block, filters // 8, *how))
        return resnet._resnet("resnet34", resnet._BASIC, (1, 1, 1, 1), input_shape, include_top, 1, pool)
