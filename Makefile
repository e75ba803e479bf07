# Each target does all its own set-up: a virtual environment in .venv, then the job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MAKEFLAGS += --jobs=2  # packages are installed while the browser is

.PHONY: demo test docs browser clean

demo: $(VENV)/installed
	$(BIN)/python -m examples.demo -o out/demo

# mypy works while tests wait. Files of few tests come in their turn, not last: they are the long ones.
test: $(VENV)/installed browser
	$(BIN)/ruff check .
	$(BIN)/mypy >$(VENV)/mypy.log 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types; typed=$$?; cat $(VENV)/mypy.log; exit $$((tests || typed))

# What a browser opens lies in out/site; no page needs the network.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[all]'
	touch $@

# Reports are looked at in a real browser. Root on Debian gets one; elsewhere those tests are skipped where none is found.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq --no-install-recommends chromium >/dev/null; \
	fi || echo "no Chromium: the tests of pages in a browser are skipped"

clean:
	rm -rf $(VENV) out build *.egg-info
