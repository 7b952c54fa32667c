# make search: the main job on a small real data set.  make test: everything CI checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart

.PHONY: search test lint types unit clean

search: $(VENV)/.installed
	$(BIN)/nas search mobile-cnn-small --data digits --objectives accuracy,latency_ms,params \
		--trials 40 --seed 0 --out $(RUN)
	$(BIN)/nas front $(RUN)
	$(BIN)/nas export $(RUN) --best

test: lint types unit

lint: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.tested
	$(BIN)/mypy

unit: $(VENV)/.tested $(VENV)/.system
	$(BIN)/python -m pytest --numprocesses 2

# The virtual environment is made again when what it is made of changes.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test --group lint
	touch $@

# Pages are tested in the distribution's Chromium, records in its PostgreSQL too; without them those
# tests say so and are skipped.
$(VENV)/.system: $(VENV)/.tested
	command -v chromium || command -v chromium-browser || { apt-get update -qq && \
		apt-get install -y -qq chromium; } || echo "no Chromium: browser tests are skipped" >&2
	ls /usr/lib/postgresql/*/bin/initdb || command -v initdb || { apt-get update -qq && \
		apt-get install -y -qq postgresql; } || echo "no PostgreSQL: its tests are skipped" >&2
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
