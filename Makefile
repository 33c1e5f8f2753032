# Everything runs in one virtual environment, made at the first need. constraints.txt pins what results depend on.
PYTHON ?= python3
VENV ?= .venv-make
DIST_CUDA ?= AUTO

bin := $(abspath $(VENV))/bin
demo_ready := $(VENV)/demo-ready
ready := $(VENV)/ready
dev_ready := $(VENV)/dev-ready
native := $(shell find csrc cmake -type f) CMakeLists.txt setup.py pyproject.toml constraints.txt
pip := $(bin)/python -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt
configure = $(bin)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM=$(bin)/ninja -DPython_EXECUTABLE=$(bin)/python \
	-Dpybind11_DIR=$$($(bin)/python -m pybind11 --cmakedir)

# CUDA is built for the GPU at hand, and not at all where there is none. `make cuda` compiles it for all architectures.
gpu := $(shell nvidia-smi -L 2>/dev/null)
INFOBATCH_CUDA ?= $(if $(gpu),AUTO,OFF)
native_options = INFOBATCH_CUDA=$(INFOBATCH_CUDA) $(if $(gpu),CUDAARCHS=$${CUDAARCHS:-native}) PATH="$(bin):$$PATH"
install = $(native_options) $(pip) --no-build-isolation --editable
# The packages that a line of pyproject.toml names.
named = $$(sed -n 's/^$(1) = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",')

# The part of the tests that walks all native code within a minute or two under the sanitizers.
sanitize_tests ?= $(wildcard tests/contract/test_contract*.py) tests/contract/test_errors.py tests/contract/test_resume.py \
	tests/engine/test_algorithm.py tests/engine/test_exact_sum.py tests/engine/test_native_functions.py

# What is imported here is compiled once, also where the environment tells Python not to write it: torch alone takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo figures test test-slow examples bench report gpu-check lint emulate compilers sanitize docs cuda dist wheel clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(demo_ready) ## what pruning does to training, and what planning costs (DEMO_ARGS: see examples/digits.py --help)
	$(bin)/python examples/digits.py $(DEMO_ARGS)
	$(bin)/python examples/costs.py

figures: $(demo_ready) ## make the picture and the numbers of the README's demo
	$(bin)/python examples/digits.py --out docs/digits.png --json benchmarks/results/digits.json

test test-slow: pytest = $(bin)/pytest -n logical --maxprocesses 8 --dist worksteal
test: $(ready) ## run all tests but the slowest (TEST_ARGS: for pytest; -n0 runs them in one process)
	$(pytest) -m 'not slow' $(TEST_ARGS)

test-slow: $(ready) ## run the slowest: whole examples, studies, kills and restarts at every step
	$(pytest) -m slow $(TEST_ARGS)

bench: $(ready) ## measure the speed: all operations, and a training step (BENCH_ARGS: see python -m infobatch_fast bench --help)
	$(bin)/python -m infobatch_fast bench --out benchmarks/results/bench-here.json $(BENCH_ARGS)
	$(bin)/python benchmarks/bench_training.py --out benchmarks/results/training-here.json

report: $(ready) ## make the documents' tables and plots from the JSON files in benchmarks/results
	$(bin)/python benchmarks/report.py $(wildcard benchmarks/results/bench-*.json benchmarks/results/training-*.json) \
		--gpus $(wildcard benchmarks/results/gpu-*.json) --results benchmarks/results --speed docs/speed.md
	$(bin)/python benchmarks/gpu_tables.py $(wildcard benchmarks/results/gpu-*.json) \
		--markdown benchmarks/results/gpu.md --speed docs/speed.md
	$(bin)/python benchmarks/bench_scaling.py --markdown $(wildcard benchmarks/results/scaling-*.json)

gpu-check: ## on a machine with a GPU, torch, nvcc and pytest: build, comparisons, tests, speed (STAGES: see scripts/gpu_check.py)
	$(PYTHON) scripts/gpu_check.py $(STAGES)

examples: $(ready) ## run the examples that no test runs
	for name in accelerate_loop huggingface_trainer logging_run own_loop stream; do $(bin)/python examples/$$name.py || exit 1; done

lint: $(dev_ready) ## check style and types
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports --no-logo
	$(bin)/clang-format --dry-run -Werror $$(find csrc tests/native -regex '.*\.\(h\|cpp\|cu\|cuh\)')

# Needs g++ and python3 alone, on x86-64.
emulate: ## check the CUDA kernels against the CPU backend without a GPU, and the checks by faults put into the kernels
	$(MAKE) -C tests/native -j2 --output-sync=target CXX="$(CXX)" PYTHON="$(PYTHON)" emulate

compilers: $(ready) ## check the CPU code with every g++-* and clang++-* on the PATH, which must leave the same bits
	$(MAKE) -C tests/native -j2 --output-sync=target CXX="$(CXX)" BINDINGS="$$($(bin)/python -m pybind11 --includes)" compilers

# The runtimes of the sanitizer and of C++ must be loaded before Python, which is linked to neither. Leaks are not looked for:
# Python and torch keep memory until the end.
sanitize: $(ready) ## run the native code under AddressSanitizer and UBSan (Linux, GCC)
	CXX="$(CXX)" $(configure) -B build/sanitize -DINFOBATCH_SANITIZE=ON -DINFOBATCH_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo
	$(bin)/cmake --build build/sanitize
	rm -rf build/sanitize/site && mkdir -p build/sanitize/site
	cp -R infobatch_fast build/sanitize/site && rm -f build/sanitize/site/infobatch_fast/engine/_core*.so
	$(bin)/cmake --install build/sanitize --prefix build/sanitize/site/infobatch_fast/engine
	export LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$(CURDIR)/build/sanitize/site && \
	(cd build && $(bin)/python -c "from infobatch_fast.engine import _core as c; assert '/sanitize/' in c.__file__, c.__file__") && \
	$(bin)/pytest -p no:cacheprovider $(sanitize_tests)

docs: $(dev_ready) ## build the documentation's site in build/site; a broken link fails
	$(bin)/python scripts/site.py build/site-source
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict --quiet

cuda: $(ready) ## compile the CUDA backend with nvcc; no GPU is needed
	$(configure) -B build/cuda -DINFOBATCH_CUDA=ON
	$(bin)/cmake --build build/cuda
	$(MAKE) -C tests/native -j2 gpu GPU_ARCH=sm_90

dist: $(dev_ready) ## make the sdist, and from it a wheel, in an isolated environment without torch (DIST_CUDA: ON, OFF, AUTO)
	rm -rf build/dist
	INFOBATCH_CUDA=$(DIST_CUDA) $(bin)/python -m build --outdir build/dist .
	@for part in 'engine/_core\.' 'py\.typed' 'engine/_core\.pyi' 'licenses/LICENSE'; do \
		$(bin)/python -m zipfile -l build/dist/*.whl | grep "$$part" || { echo "$$part is not in the wheel"; exit 1; }; \
	done

# auditwheel names the oldest glibc that the wheel runs on, and puts libgomp into it. The wheel links no torch: it runs with any.
wheel: dist ## make a Linux wheel for other machines, and run the contract's tests with it in an environment of its own
	rm -rf build/wheel
	PATH="$(bin):$$PATH" $(bin)/auditwheel repair --wheel-dir build/wheel build/dist/*.whl
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt "$$(ls build/wheel/*.whl)[test]"
	cd build/wheel && venv/bin/python -c "from infobatch_fast.engine import _core as c; assert '/wheel/venv/' in c.__file__, c.__file__"
	cd build/wheel && venv/bin/pytest -p no:cacheprovider -n logical --maxprocesses 8 --dist worksteal $(CURDIR)/tests/contract
	ls -l build/dist build/wheel/*.whl

clean: ## remove all that make has made
	rm -rf $(VENV) build dist *.egg-info infobatch_fast/engine/_core*.so .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .benchmarks

# Without build isolation the second build after a change takes seconds. The two side by side may fail: $(install) then does their
# work once more, and shows why.
$(demo_ready): $(native)
	@$(PYTHON) -c "import sys; v = sys.version_info; v >= (3, 10) or sys.exit(f'Python 3.10 or newer is needed, $(PYTHON) is {v.major}.{v.minor}: make PYTHON=...')"
	test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	$(pip) $(call named,requires)
	@echo "the native code is compiled while packages are installed"
	$(native_options) $(bin)/python setup.py build_ext >/dev/null 2>&1 & $(pip) $(call named,dependencies) $(call named,demo); wait
	$(install) '.[demo]'
	@touch $@

# The pip of older Pythons takes three times as long to find out what to install.
$(ready): $(demo_ready)
	$(pip) 'pip>=25'
	$(install) '.[demo,test,partners]'
	@touch $@

$(dev_ready): $(ready)
	$(install) '.[dev,docs]'
	@touch $@
