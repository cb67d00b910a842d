"""Names of weights: `layer/weight`, the same in files and in networks."""

from collections import Counter
from collections.abc import Iterable


def short_names(paths: Iterable[str]) -> list[str]:
    """Shorten paths of weights to `layer/weight`; those that are then ambiguous keep their whole path.

    >>> short_names(["vgg16/block1_conv1/kernel", "a/query/kernel", "b/query/kernel"])
    ['block1_conv1/kernel', 'a/query/kernel', 'b/query/kernel']
    """
    paths = list(paths)
    tails = ["/".join(path.split("/")[-2:]) for path in paths]
    seen = Counter(tails)
    return [tail if seen[tail] == 1 else path for path, tail in zip(paths, tails, strict=True)]
