"""The networks of the recipes have the parameters of their sources, and docs/systems.md says what they have."""

from pathlib import Path

import pytest
from valueless import valueless

from planar3d.graph.described import layer_costs
from planar3d.networks.registry import list_networks, recipe_network
from planar3d.recipes import RECIPES

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"
TABLE = PAGE.read_text(encoding="utf-8").partition("| recipe | network |")[2].partition("\n\n")[0]
# Of each row its first recipe, with input, parameters and GMAC.
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()[2:]]
SAID = {row[0].split("`")[1]: (row[3], row[4].split()[0], row[5].split()[0]) for row in ROWS}

# Trainable parameters and moving statistics. Sources: Kolarik 2020's release; computed from the released layers of
# Wacker 2019, Messaoudi 2020 and Messaoudi 2023.
SOURCES = {
    "paper": (22_870_881, 0),
    "wacker2019-3d": (26_673_172, 20_288),
    "messaoudi2020": (14_376_787, 43_936),
    "messaoudi2023-ds-released": (7_668_118, 41_440),
    "messaoudi2023-omnia-camus": (5_845_968, 41_472),
    "messaoudi2023-omnia-chaos": (19_427_965, None),
    "messaoudi2023-dx": (12_542_831, 0),
}


def test_every_network_is_compared_with_its_source():
    assert {RECIPES[name].network.name for name in SOURCES} == set(list_networks()) and SOURCES.keys() <= SAID.keys()


def test_the_table_has_a_row_for_each_network():
    assert {RECIPES[name].network.name for name in SAID} == {recipe.network.name for recipe in RECIPES.values()}


@pytest.mark.parametrize("name", SAID)
def test_a_network_has_the_parameters_of_its_source_and_the_row_says_so(name):
    with valueless():
        network = recipe_network(RECIPES[name])
    parameters, rest = (
        sum(variable.shape.num_elements() for variable in variables)
        for variables in (network.trainable_weights, network.non_trainable_weights)
    )
    trainable, statistics = SOURCES.get(name, (parameters, None))
    assert parameters == trainable and rest == (rest if statistics is None else statistics)
    work = sum(cost.macs for cost in layer_costs(network))
    shape = "×".join(map(str, network.input_shape[1:]))
    assert (shape, f"{parameters:,}", f"{work / 1e9:.1f}") == SAID[name]
