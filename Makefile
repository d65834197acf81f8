# `make demo` and `make test` need only Python 3.11 or later and make: they fill .venv themselves.
# Where there is a C++ compiler, the native engine is built as well.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
# what `make test` and `make check` install: dev,eval where there is a C++ compiler
EXTRAS ?= dev
# processes that tests run in
JOBS ?= auto

TEXT ?= The quick brown fox jumps over the lazy dog.
OUT ?= fox.wav
# where `make gpu` adds its figures, and what else it's told, such as --interpret
GPU_OUT ?= runs/gpu.jsonl
GPU_ARGS ?=

BIN = .venv/bin
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS)
ENGINE = $(wildcard kernels/csrc/*)

.PHONY: demo test check sanitize bench gpu gpu-code linked install

demo: .venv/core.stamp
	$(BIN)/wavernn say "$(TEXT)" -o $(OUT)

test: install
	$(BIN)/pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

# mypy doesn't follow an editable install, so it runs in a tree of links
check: install linked
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd .build/linked && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p wavernn

# the four folders as they are installed
linked:
	rm -rf .build/linked
	mkdir -p .build/linked/wavernn
	cd .build/linked/wavernn && ln -s ../../../wavernn/* ../../../kernels ../../../train ../../../serve .

# The backend tests on an engine that checks each access to memory and each undefined operation.
# Its loops are compiled for two numbers of streams, which is enough to reach all of the code.
SANITIZERS = -fsanitize=address,undefined -fno-sanitize-recover=undefined
SANITIZE = -std=c++17 -O1 -g1 -fPIC -ffp-contract=off -fno-exceptions -fno-rtti $(SANITIZERS) \
	-DWIDTHS='Widths<6, 1>()'
SANITIZED = $(patsubst kernels/csrc/%.cpp,.build/sanitized/%.o,$(filter %.cpp,$(ENGINE)))

.build/sanitized/%.o: kernels/csrc/%.cpp $(ENGINE) Makefile
	@mkdir -p $(@D)
	$(CXX) $(SANITIZE) -c $< -o $@

.build/sanitized/engine.so: $(SANITIZED)
	$(CXX) -shared $(SANITIZERS) $^ -o $@ -lm

# Python itself isn't sanitized, so the libraries are loaded before it; what it never frees is no
# leak. A report goes to the file descriptor, which pytest would otherwise swallow.
sanitize: install .build/sanitized/engine.so
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	WAVERNN_ENGINE=$(CURDIR)/.build/sanitized/engine.so PYTHONPATH=tests/sanitize \
	$(BIN)/pytest -n $(JOBS) --dist worksteal -p apart --capture=sys --require cpu -k cpu \
		tests/backend $(PYTEST_ARGS)

bench: .venv/core.stamp
	$(BIN)/wavernn bench

# Python from a checkout's root would take wavernn/ there for the whole package
LINKED = PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/.build/linked

# Checks and times the GPU kernels, well within ten minutes. It takes $(PYTHON) as it is, with torch,
# triton, numpy and safetensors, since the torch in .venv may be one without CUDA.
gpu: linked
	$(LINKED) $(PYTHON) -m wavernn.kernels.gpu.device_bench --out $(GPU_OUT) $(GPU_ARGS)

# What the GPU kernels become as machine code; needs no GPU.
gpu-code: install linked
	$(LINKED) $(BIN)/python -m wavernn.kernels.gpu.compiled --jobs 2 $(GPU_ARGS)

install: .venv/dev.stamp

# pip is the last thing that venv makes, so a half-made one is made again
.venv/bin/pip:
	$(PYTHON) -m venv .venv

# an engine of older sources must not pass for one that failed to compile
.venv/core.stamp: pyproject.toml $(ENGINE) | .venv/bin/pip
	rm -f kernels/_engine*.so
	$(PIP_INSTALL) -e ".[text]"
	@ls kernels/_engine*.so >/dev/null 2>&1 || \
		echo "The native engine was not built; $(PIP_INSTALL) -v -e . says why." >&2
	touch $@

# wavernn is there already, so that only what the extras need is added and nothing compiled again
.venv/dev.stamp: .venv/core.stamp
	$(PIP_INSTALL) "wavernn[$(EXTRAS)]"
	touch $@
