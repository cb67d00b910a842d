"""Prints the lower bounds of pyproject.toml as exact versions: of the base install and of the extras named.

python .ci/lower_bounds.py study,openvino
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
needed = set(project["dependencies"])
for extra in sys.argv[1].split(","):
    needed |= set(project["optional-dependencies"][extra])
print(*sorted(re.sub(r">=([\w.]+).*", r"==\1", line) for line in needed), sep="\n")
