"""Weights go by `layer/weight`, and by more only where that is ambiguous."""

from planar3d.transfer.naming import short_names


def test_paths_are_shortened_where_they_stay_unique():
    paths = ["vgg16/block1_conv1/kernel", "conv10/bias", "a/query/kernel", "b/query/kernel"]
    assert short_names(paths) == ["block1_conv1/kernel", "conv10/bias", "a/query/kernel", "b/query/kernel"]


def test_names_stay_distinct():
    paths = ["a/b/c/kernel", "d/b/c/kernel", "c/bias", "kernel"]
    assert len(set(short_names(paths))) == len(paths)
