# `make demo` and `make test` need only Python 3.11 or later and make: they fill .venv themselves.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
# what `make test` and `make check` install: dev,eval where there is a C compiler
EXTRAS ?= dev
# processes that tests run in
JOBS ?= auto

CHECKPOINT ?= checkpoints/lj-sparse-384.safetensors
MEL ?= checkpoints/samples/demo.npz
OUT ?= demo.wav

BIN = .venv/bin
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS)

.PHONY: demo test check bench gpu install

demo: .venv/core.stamp
	$(BIN)/wavernn synth $(CHECKPOINT) $(MEL) -o $(OUT)

test: install
	$(BIN)/pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

# mypy needs the folders as they are installed (kernels/ as wavernn.kernels) and doesn't
# follow an editable install, so it runs in a tree of links
check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf .build/typed/wavernn
	mkdir -p .build/typed/wavernn
	cd .build/typed/wavernn && ln -s ../../../wavernn/* ../../../kernels ../../../train ../../../serve .
	cd .build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p wavernn

bench: .venv/core.stamp
	$(BIN)/wavernn bench

gpu:
	@test -d kernels/gpu || { echo "GPU kernels are not part of the package yet." >&2; exit 2; }
	$(MAKE) install
	$(BIN)/pytest --require gpu tests/backend $(PYTEST_ARGS)

install: .venv/dev.stamp

# pip is the last thing that venv makes, so a half-made one is made again
.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/core.stamp: pyproject.toml | .venv/bin/pip
	$(PIP_INSTALL) -e .
	touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/pip
	$(PIP_INSTALL) -e .[$(EXTRAS)]
	touch .venv/core.stamp $@
