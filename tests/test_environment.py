"""The versions and the machine of a result."""

import importlib.metadata

import numpy as np
import pytest

from planar3d import environment
from planar3d.environment import versions


def test_packages_are_looked_up_once_for_all_scans(monkeypatch):
    first = versions("pytest")
    assert (
        first["numpy"] == np.__version__ and "pytest" in first and "no-such-package" not in versions("no-such-package")
    )

    def refuse(package):
        raise AssertionError(f"{package} was looked up again")

    monkeypatch.setattr(importlib.metadata, "version", refuse)
    again = versions("pytest", "no-such-package")
    assert again == first and again is not first


@pytest.mark.parametrize(
    ("flags", "limit", "found"),
    [
        ("avx2 avx512_bf16 amx_bf16", None, "amx_bf16"),
        ("avx2 avx512_bf16 amx_bf16", "avx512_core_bf16", "avx512_bf16"),
        ("avx2 avx512_bf16 amx_bf16", "AVX512_CORE_AMX", "amx_bf16"),
        ("avx2 avx512_bf16 amx_bf16", "AVX2", "none"),
        ("avx2 avx512_bf16", "DEFAULT", "avx512_bf16"),
        ("avx2", "AVX512_CORE_AMX", "none"),
    ],
)
def test_bf16_instructions_are_the_processor_s_within_the_limit_of_onednn(flags, limit, found, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(environment, "Path", lambda name: tmp_path / "cpuinfo")
    if limit is None:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    else:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert environment.bf16_instructions() == found
