"""The split of samples as a recipe has it."""


def split(train, validation, slices, recipe):
    return recipe.training.samples.split(train, validation, slices, recipe.tiles)
