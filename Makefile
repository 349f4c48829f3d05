.PHONY: demo test stress lint audit lock space clean
PYTHON ?= python3
BIN := .venv/bin
# whom the audit asks; known to answer with vulnerabilities for the package in PROBE
OSV := https://api.osv.dev/v1/query
PROBE := {'package': {'name': 'requests', 'ecosystem': 'PyPI'}, 'version': '2.19.0'}

demo: .venv/runtime ## the app, at http://127.0.0.1:7860
	$(BIN)/python app.py

test: .venv/dev ## all tests, their files side by side on up to four cores
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

stress: .venv/dev ## 20,000 broken files, load, faults and a long run, with a table of what came of it
	@rm -f stress.txt
	@STARGAN_STRESS=1 STARGAN_FUZZ=20000 STARGAN_REPORT=$(CURDIR)/stress.txt $(BIN)/python -m pytest -p no:warnings --durations=0 \
		tests/test_fuzz.py tests/test_apart.py tests/test_hostile.py tests/test_fetching.py tests/test_files.py tests/test_serving.py \
		tests/test_space.py tests/test_training.py::test_killed_at_any_moment_a_run_goes_on_bit_for_bit; status=$$?; cat stress.txt; exit $$status

lint: .venv/dev ## style, types, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory audit

audit: .venv/dev ## known vulnerabilities of what requirements.lock names; offline it is skipped
	@if $(BIN)/python -c "import requests; requests.post('$(OSV)', json=$(PROBE), timeout=10).json()['vulns']" 2>/dev/null; then \
		$(BIN)/pip-audit --disable-pip --requirement requirements.lock --vulnerability-service osv --osv-url $(OSV); \
	else echo "Skipped the audit of known vulnerabilities: $(OSV) does not answer."; fi

lock: .venv/bin/uv ## the newest versions that requirements*.txt allow, with the hashes of their files
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --upgrade --generate-hashes requirements-dev.txt -o requirements.lock

.venv/runtime: requirements.txt requirements.lock | .venv/bin/uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -r requirements.txt -c requirements.lock
	touch $@

.venv/dev: requirements-dev.txt requirements-onnx.txt requirements.txt requirements.lock | .venv/bin/uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -r requirements-dev.txt -c requirements.lock
	touch $@ .venv/runtime

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

space: .venv/runtime ## how to publish this as a Hugging Face Space
	@echo "Create a Gradio Space (ZeroGPU or CPU), log in with '$(BIN)/hf auth login', then upload what git tracks:"
	@echo "  rm -rf space && git archive --prefix=space/ HEAD | tar x && $(BIN)/hf upload USER/SPACE space . --repo-type space --delete '*'"

clean:
	rm -rf .venv
