# `make demo`: the whole path on a fresh machine. `make test`: everything that must hold. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EDGERECALL := $(BIN)/edgerecall
CONFIG := configs/demo.yaml
DOCS := build/docs-env
TORCH := build/torch-env
CLIENTS := build/clients-env

CMAKE := $(BIN)/cmake
CTEST := $(BIN)/ctest
FUZZ_SECONDS := 30
JOBS := $(shell nproc)
# What the core is built with, where the system has no compiler or libraries of its own. zig has no address sanitizer.
CORE = $(shell cat $(VENV)/edgerecall-cmake 2>/dev/null)
SANITIZED = --preset sanitized $(CORE) $(if $(findstring EDGERECALL_ZIG,$(CORE)),-DEDGERECALL_SANITIZE=)
CPP_TEST = -DEDGERECALL_BUILD_TESTS=ON -DEDGERECALL_WERROR=ON -DCMAKE_UNITY_BUILD=ON $(CORE)

.PHONY: demo serve photos test setup wheel lint cpp-test pytest test-core test-cpus cpp-all cpp-thread cpp-clang cpp-fuzz devices \
    benchmarks clean
.DELETE_ON_ERROR:

demo: demo/report.md
	@echo
	@echo "untrained: $$(tail -n 1 demo/untrained.txt)"
	@echo "trained:   $$(grep -F '[Eval]' demo/run/train.log | tail -n 1 | sed 's/.*INFO: //')"
	@echo
	@cat demo/report.md
	@echo "with plots: demo/report.html; raw data: demo/bench.json"

# After the demo: a page to drop a picture on, and the nearest products.
demo/gallery/gallery.json: demo/report.md
	@rm -rf demo/gallery
	$(EDGERECALL) gallery build demo/gallery demo/bundle --images demo/data --list demo/data/test_list.txt

serve: demo/gallery/gallery.json
	$(EDGERECALL) serve demo/bundle --gallery demo/gallery --pictures demo/data

# A page with model and gallery that needs no server but one of files.
.PHONY: site
site: demo/gallery/gallery.json dist/edgerecall-web.tar.gz
	$(EDGERECALL) web demo/bundle demo/site --gallery demo/gallery --pictures demo/data --title "EdgeRecall demo"
	$(BIN)/python -m http.server -b 127.0.0.1 -d demo/site 8000

# The same on photographs: DATA is the folder `dataset` of a clone of github.com/marcusklasson/GroceryStoreDataset.
PHOTOS := demo/photos
photos: setup
	@test -f "$(DATA)/classes.csv" || { echo "make photos: expected DATA=the folder 'dataset' of GroceryStoreDataset" >&2; exit 2; }
	$(EDGERECALL) data convert "$(DATA)" --seed 7 --train-classes 41 --lists $(PHOTOS) --force
	$(EDGERECALL) train -c configs/photos.yaml $(foreach part,Train Eval.Gallery,-o "DataLoader.$(part).dataset.image_root=$(DATA)")
	$(EDGERECALL) export $(PHOTOS)/bundle -c configs/photos.yaml --checkpoint $(PHOTOS)/run/latest --force \
	    -o "DataLoader.Eval.Gallery.dataset.image_root=$(DATA)"
	$(EDGERECALL) verify $(PHOTOS)/bundle
	$(EDGERECALL) bench $(PHOTOS)/bundle --images "$(DATA)" --list $(PHOTOS)/test_list.txt --json $(PHOTOS)/bench.json \
	    --html $(PHOTOS)/report.html --markdown $(PHOTOS)/report.md
	@cat $(PHOTOS)/report.md

test: setup
	@$(MAKE) --no-print-directory -j3 lint cpp-test $(TORCH)/installed $(CLIENTS)/installed
	@$(MAKE) --no-print-directory pytest

setup:
	@$(PYTHON) scripts/bootstrap.py $(VENV) $(if $(filter command environment,$(word 1,$(origin PYTHON))),--this)

demo/data/synth.json: | setup
	@rm -rf demo/data
	$(EDGERECALL) data synth demo/data

demo/untrained.txt: $(CONFIG) demo/data/synth.json
	$(EDGERECALL) eval -c $(CONFIG) > $@
	@cat $@

demo/run/.done: $(CONFIG) demo/data/synth.json | demo/untrained.txt
	$(EDGERECALL) train -c $(CONFIG)
	@touch $@

demo/bundle/bundle.json: demo/run/.done
	$(EDGERECALL) export demo/bundle -c $(CONFIG) --checkpoint demo/run/best_model --force

# A row of Chromium where there is one, and what builds its page: the pages and the core as WebAssembly.
WEB := $(if $(strip $(foreach one,em++ npm chromium dpkg-source,$(if $(shell command -v $(one)),,lacks))),,dist/edgerecall-web.tar.gz)
WEB_SOURCES := $(shell find web cpp cmake cross CMakeLists.txt runtimes/core/contract.json -type f -not -path '*/node_modules/*' -not -name '*.pyc')
dist/edgerecall-web.tar.gz: $(WEB_SOURCES) | setup
	$(EDGERECALL) cross web

demo/report.md: demo/bundle/bundle.json $(WEB)
	$(EDGERECALL) verify demo/bundle
	@$(if $(WEB),,echo "no row of a browser: it needs chromium, emscripten and npm")
	$(EDGERECALL) bench demo/bundle --images demo/data --json demo/bench.json --csv demo/bench.csv --html demo/report.html \
	    --markdown $@ $(if $(WEB),--device browser:chromium)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(find cpp -name '*.cpp' -o -name '*.h')
	$(BIN)/python scripts/check_includes.py
	@$(BIN)/python scripts/flatten.py
	$(BIN)/mypy
	PYTHONPATH=build/flat $(BIN)/lint-imports --no-cache

cpp-test: setup
	$(CMAKE) $(SANITIZED)
	$(CMAKE) --build build/sanitized --parallel $(JOBS)
	UBSAN_OPTIONS=halt_on_error=1 $(CTEST) --test-dir build/sanitized --parallel $(JOBS) --output-on-failure

pytest: setup $(TORCH)/installed $(CLIENTS)/installed
	@shared=$$(mktemp -d); trap 'rm -rf "$$shared"' EXIT; trap 'exit 130' INT TERM; export EDGERECALL_TEST_FOLDER="$$shared"; \
	$(BIN)/pytest -m "not device and not alone" -n auto --maxprocesses 4 --dist loadfile && $(BIN)/pytest -m alone

# What needs neither PaddlePaddle nor a real runtime.
test-core: setup
	$(BIN)/pytest -m core

# OpenBLAS computes for NumPy, oneDNN for Paddle Inference and OpenVINO, MKL for Paddle's training: each
# with the kernels of other CPUs, over the tests of the tier that it computes for and whose figures go through it.
CPU_SETTINGS := $(foreach core,Haswell SkylakeX Zen Nehalem,OPENBLAS_CORETYPE=$(core):core) \
    $(foreach isa,AVX2 SSE41,ONEDNN_MAX_CPU_ISA=$(isa):runtime) MKL_CBWR=COMPATIBLE:runtime \
    MKL_CBWR=COMPATIBLE+OMP_NUM_THREADS=1:train MKL_ENABLE_INSTRUCTIONS=AVX2+OMP_NUM_THREADS=2:train

test-cpus: setup
	@for one in $(CPU_SETTINGS); do setting="$$(echo "$${one%:*}" | tr + ' ')"; echo "== $$setting over tier $${one#*:}"; \
	    env $$setting $(BIN)/pytest -q -m "cpu_sensitive and $${one#*:}" || exit 1; done

# The core once more: threads checked, and by clang, sanitized and fuzzed. Needs clang 14.
cpp-all: cpp-thread cpp-fuzz

cpp-thread: setup
	$(CMAKE) -S . -B build/thread -DCMAKE_BUILD_TYPE=RelWithDebInfo $(CPP_TEST) -DEDGERECALL_SANITIZE=thread
	$(CMAKE) --build build/thread --parallel $(JOBS)
	$(CTEST) --test-dir build/thread -R '^core$$' --output-on-failure  # threads are the same whatever the vectors

cpp-clang: setup
	$(CMAKE) -S . -B build/clang -DCMAKE_CXX_COMPILER=clang++-14 -DCMAKE_BUILD_TYPE=RelWithDebInfo $(CPP_TEST) \
	    -DEDGERECALL_BUILD_PYTHON=ON -DPython_EXECUTABLE=$(abspath $(BIN))/python -DEDGERECALL_BUILD_FUZZERS=ON \
	    -DEDGERECALL_SANITIZE=fuzzer-no-link,address,undefined
	$(CMAKE) --build build/clang --parallel $(JOBS)
	UBSAN_OPTIONS=halt_on_error=1 $(CTEST) --test-dir build/clang -R '^core$$' --output-on-failure  # cpp-test has the others

cpp-fuzz: cpp-clang
	cd build/clang && for target in decode preprocess manifest; do mkdir -p $$target-new && \
	    UBSAN_OPTIONS=halt_on_error=1 ./$${target}_fuzz -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
	    -dict=../../cpp/tests/fuzz/spec.dict -print_final_stats=1 -verbosity=0 $$target-new \
	    ../../cpp/tests/fuzz/corpus/$$target || exit 1; done

# The stand-alone program: packed, sanitized, over ssh, and for ARM under QEMU with the core's tests. Needs the
# cross-compiler, QEMU and sshd; the web page in Chromium.
devices: setup
	$(BIN)/pytest -m device -n 2 --dist loadfile --no-loadscope-reorder tests/cross tests/bench tests/cpp tests/web tests/serve # the longest first

# manylinux_2_28 wheels, for x86-64 and 64-bit ARM, of every CPython here that has headers, and the sdist: dist/.
wheel: setup
	$(BIN)/python scripts/make_wheels.py

benchmarks: setup
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/preprocess.py
	$(BIN)/python benchmarks/retrieval.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/gallery.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/compressed.py --rows 200000
	$(BIN)/python benchmarks/xbm_loss.py
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/serving.py --images 100 --rounds 3
	$(BIN)/python benchmarks/threads.py

# The documentation's site, into build/site: it needs neither the package nor a compiler.
.PHONY: docs lint-workflows
docs: $(DOCS)/installed
	@$(DOCS)/bin/python scripts/flatten.py
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

# Environments with what an extra names and nothing of the package.
$(DOCS)/installed: ENVIRONMENT_PYTHON = $(PYTHON)
$(TORCH)/installed $(CLIENTS)/installed: ENVIRONMENT_PYTHON = $(BIN)/python
$(TORCH)/installed $(CLIENTS)/installed: | setup
$(DOCS)/installed $(TORCH)/installed $(CLIENTS)/installed: build/%-env/installed: pyproject.toml
	$(ENVIRONMENT_PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python scripts/extra.py $* > $(@D)/requirements.txt
	$(@D)/bin/pip --disable-pip-version-check install -q --no-compile -r $(@D)/requirements.txt
	@touch $@

# GitHub's workflows and issue forms against their schemas, and workflows for what is unsafe in them.
lint-workflows: $(DOCS)/installed
	$(DOCS)/bin/pip --disable-pip-version-check install -q "check-jsonschema>=0.33,<1" "zizmor>=1.20,<2"
	$(DOCS)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(DOCS)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(DOCS)/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(DOCS)/bin/zizmor --offline --no-progress --config .github/zizmor.yml .github/workflows

clean:
	rm -rf build dist demo runtimes/_native*.so
