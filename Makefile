# make demo: the main job on real data. make test: everything the project tests. make clean: forget both.
PYTHON ?= python3
VENV ?= .venv
CC ?= cc

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
EXAMPLE := examples/japanese_vowels
NATIVE_FLAGS := -std=c99 -pedantic -Wall -Wextra -Wconversion -Werror -O1 -g
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*.c csrc/*.h csrc/*.cpp)

.PHONY: demo test lint native-test clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed $(EXAMPLE)/data/.prepared
	$(BIN)/modelflex search $(EXAMPLE)/modelflex.toml --out runs/japanese_vowels

test: $(VENV)/.installed-dev $(EXAMPLE)/data/.prepared lint native-test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Undefined behaviour and out-of-bounds accesses in the C kernels end the run with an error.
native-test:
	@if command -v $(CC) >/dev/null; then \
	    mkdir -p build/native-test && \
	    $(CC) $(NATIVE_FLAGS) $(SANITIZERS) -Icsrc csrc/*.c tests/native/test_kernels.c \
	        -lm -o build/native-test/test_kernels && \
	    build/native-test/test_kernels; \
	else \
	    echo "SKIPPED native-test: no C compiler ($(CC)); the C kernels are not tested"; \
	fi

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Stamps: nothing is reinstalled until the build or the pinned versions change. The install is
# editable, so changes of Python files need none.
$(VENV)/.installed: $(BUILD_INPUTS) | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e .
	$(PIP) install --quiet --no-deps aeon==1.6.0
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[dev,torch,parquet]'
	@touch $@

$(EXAMPLE)/data/.prepared: $(EXAMPLE)/prepare.py | $(VENV)/.installed
	$(BIN)/python $(EXAMPLE)/prepare.py
	@mkdir -p $(@D) && touch $@

clean:
	rm -rf $(VENV) build runs $(EXAMPLE)/data .mypy_cache .pytest_cache .ruff_cache .hypothesis
