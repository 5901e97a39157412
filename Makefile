# `make demo`: the whole path on a fresh machine. `make test`: everything that must hold. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EDGERECALL := $(BIN)/edgerecall
CONFIG := configs/demo.yaml

.PHONY: demo test setup lint cpp-test pytest benchmarks clean
.DELETE_ON_ERROR:

demo: demo/report.md
	@echo
	@echo "untrained: $$(cat demo/untrained.txt)"
	@echo "trained:   $$(grep -F '[Eval]' demo/run/train.log | tail -n 1 | sed 's/.*INFO: //')"
	@echo
	@cat demo/report.md
	@echo "raw data: demo/bench.json"

test: lint cpp-test pytest

setup:
	@$(PYTHON) scripts/bootstrap.py $(VENV)

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

demo/report.md: demo/bundle/bundle.json
	$(EDGERECALL) verify demo/bundle
	$(EDGERECALL) bench demo/bundle --images demo/data --json demo/bench.json --csv demo/bench.csv --markdown $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/python scripts/flatten.py
	$(BIN)/mypy
	PYTHONPATH=build/flat $(BIN)/lint-imports --no-cache

cpp-test: setup
	$(BIN)/cmake -S . -B build/cpp -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEDGERECALL_BUILD_TESTS=ON \
	    -DEDGERECALL_WERROR=ON -DEDGERECALL_SANITIZE=address,undefined
	$(BIN)/cmake --build build/cpp --parallel
	$(BIN)/ctest --test-dir build/cpp --output-on-failure

pytest: setup
	$(BIN)/pytest

benchmarks: setup
	$(BIN)/python benchmarks/startup.py

clean:
	rm -rf build dist demo runtimes/_native*.so
