# make demo: an environment in .venv, and a network trained on real digits.
# make test: the same with the test extras; lint, types, every test.
# make cuda-host: the CUDA kernels and backend, run and compiled where no GPU is.
# make coverage: the tests again, half as fast, with the lines that none of them reaches; fails below 95 %.
# make campaign: the random tests of numerics, files and kills in full; their figures in build/campaign.jsonl.
# make examples: every example in its quick settings, with what the notes say beside what comes out.
# make pictures: the examples of the notes in full, which their pages describe; about three minutes.
# make docs: the reference pages, from the code, and the site in build/docs, with the pictures that are there, quick
#   ones or full ones as build/pictures/.made tells; where none are, or examples are newer, it makes quick ones.
# make bench: gpunn beside its peers, then the page build/benchmarks/report.html; about a quarter of an hour.
# make peers: an environment in .venv-peers with PyTorch, JAX and scikit-learn for make bench (PEERS=... for others).
PYTHON ?= python3
BIN := .venv/bin
GPUNN_RUNS ?= runs
PEERS ?= torch jax scikit-learn
NOTES := nielsen three_blue_one_brown hung_yi_lee mathematics function_fitting
PICTURES := build/pictures

.PHONY: demo test cuda-host coverage lint format campaign examples pictures docs bench peers clean

# `make -j pictures docs` is the pictures, then the site.
.NOTPARALLEL:

demo: .venv/.demo
	$(BIN)/gpunn train --data digits --out $(GPUNN_RUNS)/digits

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

cuda-host: .venv/.test
	$(BIN)/python -m pytest -m cuda_host -n auto --dist worksteal $(PYTEST_ARGS)

coverage: .venv/.test
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term --cov-fail-under=95 $(PYTEST_ARGS)

lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

campaign: .venv/.test
	@mkdir -p build && rm -f build/campaign.jsonl
	GPUNN_CAMPAIGN=full GPUNN_CAMPAIGN_REPORT=build/campaign.jsonl $(BIN)/python -m pytest -q -m campaign $(PYTEST_ARGS)
	@cat build/campaign.jsonl

# $(call draw,quick or full,options): `.made` goes first, so that an interrupted run leaves no wrong word.
define draw
@mkdir -p $(PICTURES) && rm -f $(PICTURES)/.made
printf '%s\n' $(NOTES) | xargs -P 2 -I{} sh -c \
	'told=$$($(BIN)/python examples/{}.py $(2) --out $(PICTURES) 2>&1) && echo "$$told" || { echo "$$told"; exit 255; }'
@echo $(1) > $(PICTURES)/.made
endef

examples: .venv/.test
	$(call draw,quick,--quick)
	$(BIN)/python examples/first_network.py
	$(BIN)/python examples/several_labels.py
	$(BIN)/python examples/grid_search.py --epochs 15

pictures: .venv/.test
	$(call draw,full)

$(PICTURES)/.made: $(NOTES:%=examples/%.py) examples/notes.py | .venv/.test
	$(call draw,quick,--quick)

docs: .venv/.test $(PICTURES)/.made
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --jobs auto --quiet docs build/docs
	@echo 'the site is build/docs/index.html'

bench: .venv/.test
	$(BIN)/python -m benchmarks run
	$(BIN)/python -m benchmarks report --results build/benchmarks --no-readme

peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check numpy threadpoolctl $(PEERS)

clean:
	rm -rf .venv .venv-peers build *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gpunn needs Python 3.11 or newer; $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[sklearn,plot,tensorboard]'
	@touch $@

.venv/.test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@
