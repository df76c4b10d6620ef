# Everything starts from a bare checkout: each target makes .venv first, if it is missing or pyproject.toml changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs wheel sanitize

help: ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY) ## train, test and predict on the shipped images; the result is runs/demo/report.html
	$(BIN)/internimage quickstart

test: $(READY) ## the tests: offline, on a CPU; PYTEST=options for more of pytest's options
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

check: $(READY) ## formatting, linting, types, import layers, layout
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_layout.py

bench: $(READY) ## measure operator, models and training step; OFFICIAL=path compares with an official checkout
	$(BIN)/python -m benchmarks $(if $(OFFICIAL),--official $(OFFICIAL))

wheel: $(READY) ## a wheel for this platform with the C++ kernel inside, in dist/
	INTERNIMAGE_WHEEL_KERNEL=1 $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

sanitize: $(READY) ## the tests of the C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer
	LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	INTERNIMAGE_CXXFLAGS="-g -O1 -UWITHOUT_AVX2 -UWITHOUT_AVX512 -fsanitize=address,undefined -fno-sanitize-recover=all" \
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/ops/test_dcnv3_cpu.py tests/ops/test_dcnv3_op.py \
	  tests/ops/attention/test_attention_op.py tests/model/test_fused.py -k "not whoever and not fork and not compile and not compiled and not export and not opcheck and not transforms"

docs: $(READY) ## the site, in site/: strict about links; then every code block of the documentation runs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	$(BIN)/python -m pytest -q tests/test_docs.py tests/documentation
