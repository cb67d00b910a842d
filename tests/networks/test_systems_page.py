"""The table of docs/systems.md says what the networks of its recipes have."""

from pathlib import Path

import pytest

from planar3d.graph.flops import layer_costs
from planar3d.networks.registry import recipe_network
from planar3d.recipes import RECIPES

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"
TABLE = PAGE.read_text(encoding="utf-8").partition("| recipe | network |")[2].partition("\n\n")[0]
# Of each row its first recipe, with input, parameters and GMAC.
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()[2:]]
SAID = {row[0].split("`")[1]: (row[3], row[4].split()[0], row[5].split()[0]) for row in ROWS}


def test_the_table_has_a_row_for_each_network():
    assert {RECIPES[name].network.name for name in SAID} == {recipe.network.name for recipe in RECIPES.values()}


@pytest.mark.parametrize("name", SAID)
def test_a_row_has_its_network_s_parameters_and_work(name):
    network = recipe_network(RECIPES[name])
    parameters = sum(variable.shape.num_elements() for variable in network.trainable_variables)
    work = sum(cost.macs for cost in layer_costs(network))
    shape = "×".join(map(str, network.input_shape[1:]))
    assert (shape, f"{parameters:,}", f"{work / 1e9:.1f}") == SAID[name]
