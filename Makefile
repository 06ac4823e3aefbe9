# make demo: the main job on real data. make test: everything the project tests. make models: train
# the networks that are not committed (needs MODELFLEX_DATA; more than an hour). make peers: the runtimes
# that benchmarks/runtime.py measures beside the project. make clean: forget all.
PYTHON ?= python3
VENV ?= .venv
CC ?= cc

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
EXAMPLE := examples/japanese_vowels
BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*.c csrc/*.h csrc/*.cpp)

.PHONY: demo test lint native-test native-test-cc native-test-clang native-test-avx512 native-test-arm sanitize models peers clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed $(EXAMPLE)/data/.prepared
	$(BIN)/modelflex search $(EXAMPLE)/modelflex.toml --out runs/japanese_vowels

test: $(VENV)/.installed-dev $(EXAMPLE)/data/.prepared lint native-test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Undefined behaviour and out-of-bounds accesses in the C kernels end the run with an error: with this
# compiler, with Clang, with AVX-512 emulated by SIMDe, and for 64-bit ARM in an emulator
# (scripts/install-system-packages.sh has them). What is skipped is said, and also written to the file SKIPPED_LOG.
NATIVE := $(MAKE) --no-print-directory -j2 -C tests/native run
NATIVE_BUILD := $(CURDIR)/build/native-test
ARM_CC := aarch64-linux-gnu-gcc
SKIPPED = echo "SKIPPED $(1)" | tee -a "$${SKIPPED_LOG:-/dev/null}"
ARM_QEMU := $(firstword $(shell command -v qemu-aarch64-static qemu-aarch64))

native-test: native-test-cc native-test-clang native-test-avx512 native-test-arm

native-test-cc:
	@if command -v $(CC) >/dev/null; then $(NATIVE) CC=$(CC) BUILD=$(NATIVE_BUILD)/cc; \
	else $(call SKIPPED,native-test-cc: no C compiler ($(CC))); fi

native-test-clang:
	@if echo 'int main(void) { return 0; }' | clang -fsanitize=address -x c - -o /dev/null 2>/dev/null; \
	then $(NATIVE) CC=clang BUILD=$(NATIVE_BUILD)/clang; \
	else $(call SKIPPED,native-test-clang: no clang with sanitizers); fi

native-test-avx512:
	@if echo '#include <simde/x86/avx512.h>' | $(CC) -mavx2 -mfma -x c -E - >/dev/null 2>&1; \
	then $(NATIVE) CC=$(CC) EMULATED=1 BUILD=$(NATIVE_BUILD)/avx512 PLANS=500; \
	else $(call SKIPPED,native-test-avx512: no SIMDe headers for $(CC)); fi

# Without AddressSanitizer, which does not run in the emulator.
native-test-arm:
	@if command -v $(ARM_CC) >/dev/null && [ -n "$(ARM_QEMU)" ]; then \
	    $(NATIVE) CC=$(ARM_CC) RUN='$(ARM_QEMU) -cpu max' LDFLAGS=-static BUILD=$(NATIVE_BUILD)/aarch64 PLANS=300 \
	        SANITIZERS='-fsanitize=undefined -fsanitize-undefined-trap-on-error'; \
	else $(call SKIPPED,native-test-arm: no $(ARM_CC) or no qemu-aarch64); fi

# The Python module under AddressSanitizer: bad input, damaged files, random plans, threads.
sanitize: $(VENV)/.installed-dev
	@CC=$(CC) scripts/sanitize.sh $(BIN)/python

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Stamps: nothing is reinstalled until the build or the pinned versions change. The install is
# editable, so changes of Python files need none.
$(VENV)/.installed: $(BUILD_INPUTS) | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e .
	$(PIP) install --quiet --no-deps aeon==1.6.0
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[dev,torch,parquet,onnx]'
	@touch $@

$(EXAMPLE)/data/.prepared: $(EXAMPLE)/prepare.py | $(VENV)/.installed
	$(BIN)/python $(EXAMPLE)/prepare.py
	@mkdir -p $(@D) && touch $@

# Each network is trained once; remove its folder to train it again.
DIGITS := examples/spoken_digits
TEXT := examples/shakespeare
MODELS := \
    $(foreach s,0 1 2,$(DIGITS)/weights/seed$(s)/model.json $(DIGITS)/weights/units16x16_seed$(s)/model.json) \
    $(foreach who,theo jackson,$(DIGITS)/weights/$(who)_seed0/model.json) $(DIGITS)/weights/conv_seed0/model.json \
    $(foreach s,0 1 2,$(TEXT)/weights/seed$(s)/model.json $(TEXT)/weights/units90_seed$(s)/model.json)

models: $(DIGITS)/data/.prepared $(TEXT)/data/.prepared $(MODELS)

%/data/.prepared: | $(VENV)/.installed-dev
	$(BIN)/python $*/prepare.py
	@touch $@

$(DIGITS)/weights/seed%/model.json: | $(DIGITS)/data/.prepared
	$(BIN)/python $(DIGITS)/train.py --seed $*

$(DIGITS)/weights/units16x16_seed%/model.json: | $(DIGITS)/data/.prepared
	$(BIN)/python $(DIGITS)/train.py --seed $* --units 16

$(DIGITS)/weights/%_seed0/model.json: | $(DIGITS)/data/.prepared
	$(if $(filter conv,$*),,$(BIN)/python $(DIGITS)/prepare.py --held-out $*)
	$(BIN)/python $(DIGITS)/$(if $(filter conv,$*),train_conv.py,train.py --held-out $*) --seed 0

$(TEXT)/weights/seed%/model.json: | $(TEXT)/data/.prepared
	$(BIN)/python $(TEXT)/train.py --seed $*

$(TEXT)/weights/units90_seed%/model.json: | $(TEXT)/data/.prepared
	$(BIN)/python $(TEXT)/train.py --seed $* --units 90 --weight-noise 0

# What cannot be installed on this machine is missing in the benchmark's result, which says so. TensorFlow
# only makes LiteRT's models; tf_keras without its dependencies, which bring a second TensorFlow.
PEERS_PIP := -m pip --disable-pip-version-check install --quiet -c constraints.txt -c constraints-peers.txt

peers: $(BUILD_INPUTS) constraints-peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python $(PEERS_PIP) -e .
	for peer in torch "onnxruntime onnx" openvino ai-edge-litert; do \
	    .venv-peers/bin/python $(PEERS_PIP) $$peer || echo "peers: cannot install $$peer"; done
	$(PYTHON) -m venv .venv-litert
	.venv-litert/bin/python $(PEERS_PIP) tensorflow-cpu && \
	    .venv-litert/bin/python $(PEERS_PIP) --no-deps tf_keras || \
	    echo "peers: cannot install TensorFlow; LiteRT has no models"

clean:
	rm -rf $(VENV) .venv-peers .venv-litert build runs $(wildcard examples/*/data) .mypy_cache .pytest_cache .ruff_cache .hypothesis
