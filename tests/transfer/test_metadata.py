"""What a card says of its model's measurements is used where it can be true."""

import math

import pytest

from planar3d.transfer.metadata import measures_in


@pytest.mark.parametrize(
    "wrong",
    [
        *({"false_alarms_ml": value} for value in (math.nan, math.inf, -1, True)),
        *({"spacing_mm": value} for value in ([8.0, 1.0], [0, 1.0], [1.0, math.inf], [True, 2], [math.nan, 2])),
    ],
)
def test_numbers_that_cannot_be_are_left_out(wrong):
    assert measures_in({"measured": wrong | {"extracted": [True]}}) == {"extracted": [True]}


def test_sound_numbers_are_kept():
    sound = {"false_alarms_ml": 0, "spacing_mm": [3, 3.0]}
    assert measures_in({"measured": sound}) == sound
