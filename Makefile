# make run     the app on http://127.0.0.1:8501, no key needed        (PORT=..., ROUTER_DATA=...)
# make demo    the app and a stand-in for the paid providers, on data of its own
# make check   in under a minute: style, types, layers, documents and the unit tests that start nothing
# make test    every check: style, types, then the tests, among them the layers and the pages in Chromium
# make faults  the fault tests with their full counts;  make bench  the speeds side by side

PORT ?= 8501
ROUTER_DATA ?= data
export ROUTER_DATA

# Two processes; tests/conftest.py says which tests stay together.
PYTEST_ARGS ?= -n 2
CHECKED ?= tests/domain tests/dispatch tests/pipeline tests/store tests/test_*.py
FULL_ARGS ?=
# The tests make a thousand small databases; in memory, where there is enough of it, they wait for no disk.
SHM := $(shell df -Pk /dev/shm 2>/dev/null | awk '$$6 == "/dev/shm" && $$4 > 4000000 {print $$6}')
BENCHES ?= first_paint warm_cache local page_while_local sequential paid corpus_memory ingest estimate dashboard kill_resume

BIN := .venv/bin
PY := $(BIN)/python

.PHONY: run demo check test lint format faults bench chromium install install-dev clean

run: install
	$(BIN)/streamlit run app.py --server.port $(PORT)

demo: export ROUTER_DATA := demo-data
demo: install
	$(PY) -m router demo --port $(PORT)

check test: export PYTEST_DEBUG_TEMPROOT := $(SHM)
check: lint
	$(PY) -m pytest $(PYTEST_ARGS) -q -m "not slow and not browser" $(CHECKED)

test: lint chromium
	$(PY) -m pytest $(PYTEST_ARGS)

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

faults: export FAULTS_REPORT := $(CURDIR)/.faults.txt
faults: install-dev chromium
	rm -f $(FAULTS_REPORT)
	$(PY) -m pytest tests/faults tests/dispatch/test_budget_filled.py tests/browser/test_frame.py tests/browser/test_ticks.py --full --timeout 3600 $(FULL_ARGS)
	sort -V $(FAULTS_REPORT)

bench: install-dev chromium
	failed=; for name in $(BENCHES); do echo "== $$name"; $(PY) -m benchmarks.$$name || failed="$$failed $$name"; done; \
	test -z "$$failed" || { echo "Missed:$$failed"; exit 1; }

chromium:
	@scripts/chromium

install: .venv/.installed
install-dev: .venv/.installed-dev

.venv/bin/python:
	scripts/venv

# pip leaves the folder alone where nothing changed, so a stamp that is too old only costs a second.
.venv/.installed: requirements.txt | .venv/bin/python
	$(PY) -m pip install --quiet -r requirements.txt
	touch $@

.venv/.installed-dev: requirements.txt requirements-dev.txt | .venv/bin/python
	$(PY) -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	touch .venv/.installed $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
