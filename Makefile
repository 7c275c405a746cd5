# `make demo`, `make check`, `make test` and `make docs` each set up everything they need from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: demo check test test-browser studio fuzz format types lint fast docs wheel clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "torch==2.13.0"
	$(PIP) -e ".[face,provenance,live]"
	$(BIN)/export3d models get face-landmarker
	$(BIN)/export3d models get person-segmentation
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "torch==2.13.0"
	$(PIP) -e ".[face,train,eval,cluster,provenance,live,studio,sound,mesh,export,dev]"
	$(BIN)/export3d models get face-landmarker
	$(BIN)/export3d models get person-segmentation
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "torch==2.13.0"
	$(PIP) -e ".[docs]"
	touch $@

demo: $(VENV)/.demo
	$(BIN)/export3d demo --output out/demo

format: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/pyright

lint: format types

fast: $(VENV)/.test
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not slow"

# About a minute on two cores: types on one of them, all tests but the slow ones on the other.
check: format
	$(MAKE) --no-print-directory -j 2 types fast

# A wheel for this machine's Python; `cibuildwheel` makes them for Linux, macOS and Windows (pyproject.toml).
wheel: $(VENV)/.demo
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

# Where a head model lies beside the checkout, the tests run on it too; without one, on the head made in code.
HEAD_MODEL := $(wildcard ../shared/ict_facekit/ict_lite.npz)
ifneq ($(HEAD_MODEL),)
test: export EXPORT3D_HEAD_MODEL ?= $(abspath $(HEAD_MODEL))
endif

test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2

# The studio's page in Chromium (Debian: apt-get install chromium). `make test` runs these too, where there is one.
test-browser: $(VENV)/.test
	$(ONE_THREAD) $(BIN)/python -m pytest -m browser tests/studio tests/mesh

$(VENV)/.studio: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "torch==2.13.0"
	$(PIP) -e ".[studio]"
	$(BIN)/export3d models get face-landmarker
	touch $@

# The page in the browser.
studio: $(VENV)/.studio
	$(BIN)/export3d studio

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict --quiet --site-dir out/site
	@echo "out/site/index.html"

# Damaged files through every reader; for hours: make fuzz FILES=500000 SEED=1
FILES ?= 5000
SEED ?= 0
fuzz: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/attack.py --files $(FILES) --seed $(SEED)

clean:
	rm -rf $(VENV) out build dist src/*.egg-info
