# Everything runs in .venv, which is made on first use and reused afterwards.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-fast soak lint bench bench-embedded clean

demo: $(READY)
	$(BIN)/zerodefect demo --output demo-run

PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto

test: lint
	$(PYTEST) --dist loadfile

# For daily work: no training, no killing, no parity.
test-fast: $(READY)
	$(PYTEST) --dist load -m 'not (parity or training or killing or slow or soak)'

# For a release: killing at random moments, fuzzing, long runs.
soak: $(READY)
	$(PYTEST) --dist load -m 'soak or killing'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The comparison with anomalib needs its own environment; see the head of that file.
bench: $(READY)
	$(BIN)/python benchmarks/inspect_speed.py
	$(BIN)/python benchmarks/metrics_speed.py
	$(BIN)/python benchmarks/trained_speed.py
	$(BIN)/python benchmarks/memory_speed.py $(if $(PEER),--peer $(PEER))
	$(BIN)/python benchmarks/mutual_speed.py --layers 1
	$(if $(PEER),$(BIN)/python benchmarks/winclip_vs_anomalib.py --peer $(PEER))

# The embedded model on real pictures; ARGS names folders and settings, see the head of that file.
bench-embedded: $(READY)
	$(BIN)/python benchmarks/embedded.py $(ARGS)

clean:
	rm -rf .venv demo-run runs

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "ZeroDefect needs Python 3.10 or newer; run: make PYTHON=/path/to/python3.10"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $(READY)
