# make demo      install into .venv and train the infinite-width limit on handwritten digits
# make test      install what the tests need and run them
# make lint      ruff and mypy
# make docs      build the documentation, notebooks included, into docs/_build/html
# make evidence  the long comparisons with exact answers and dense networks, which rewrite validation/reports, the tests
#                of many seeds, kills, damaged files and full disks, and all notebooks (four hours)
# make planted-faults   faults planted in the source one at a time, which the tests have to catch
# make benchmark speed beside what one would use otherwise and the bounds of the machine, into docs/performance.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RESULTS := results
CONSTRAINTS := tests/constraints.txt
# the others run in the documentation and with the evidence
QUICK_NOTEBOOKS := notebooks/first_steps.ipynb

.PHONY: demo test lint docs evidence planted-faults benchmark clean

demo: $(VENV)/.installed
	@mkdir -p $(RESULTS)
	$(BIN)/flds solve --out $(RESULTS)/digits.nc

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --nbmake --durations=15 $(QUICK_NOTEBOOKS) tests

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

evidence: $(VENV)/.installed-dev
	$(BIN)/flds validate --full --out validation/reports
	$(BIN)/python -m pytest -m slow -n 0 tests
	$(BIN)/python -m pytest --nbmake -n 0 notebooks

planted-faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.planted_faults

benchmark: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/benchmarks/requirements.txt
	@mkdir -p $(RESULTS)
	$(BIN)/python -m pytest tests/benchmarks/bench_*.py --benchmark-only -n 0 -s \
		--benchmark-json=$(RESULTS)/benchmarks.json
	$(BIN)/python -m tests.benchmarks.report $(RESULTS)/benchmarks.json docs/performance.md

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "flds needs Python 3.11 or later: make demo PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed tests/constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[validation,mpi,cluster,docs,dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(RESULTS) docs/_build docs/notebooks
