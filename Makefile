# Everything runs inside .venv, which the first target that needs it creates. `make help` lists.
PYTHON ?= python3
PIP_ARGS ?=
PROFILE ?=
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup repro internalize ablations seeds bench test test-slow conformance lint format lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | column -t -s "$$(printf '\t')"

# Made under another name and renamed, so that an interrupted installation is begun again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch .venv/installed

setup: .venv/installed  ## create .venv with the locked versions

# An experiment is a commit, which DVC refuses to make for nobody: in a container, in CI.
SIGNED = $(if $(shell git config user.email),,GIT_AUTHOR_NAME=nobody GIT_AUTHOR_EMAIL=nobody@localhost \
	GIT_COMMITTER_NAME=nobody GIT_COMMITTER_EMAIL=nobody@localhost)

# Only some tasks: make repro TASKS=os_interaction,web_browsing; such a part is no experiment. Stages at a time: make repro JOBS=1.
repro: setup  ## run what has changed of the pipeline, on all cores: make repro [PROFILE=smoke] [TASKS=os_interaction] [JOBS=n]
	$(if $(PROFILE),python -m gcd.profiles $(PROFILE))
	python -m gcd.repro $(if $(TASKS),--tasks $(TASKS)) $(if $(JOBS),--jobs $(JOBS))
	$(if $(filter all,$(PROFILE)),$(if $(TASKS),,python -m gcd.report.further_rows))
	$(if $(PROFILE),$(if $(TASKS),,$(SIGNED) dvc exp save --force --name $(PROFILE)))
	$(if $(PROFILE),$(if $(TASKS),,@echo "Saved as experiment $(PROFILE). Compare: dvc exp show --only-changed. Go back: git checkout params.yaml dvc.lock$(if $(filter all,$(PROFILE)), && make repro, reports)"))

# More: FORMAT=schema.json MODEL=folder ROWS=seqkd_kld,… NAME=… PREVIOUS=name WARM_START=yes MERGED=yes GGUF="adapter merged"
# (docs/internalize.md).
ASKED = '$(PROMPT)' $(if $(INPUTS),--inputs '$(INPUTS)') $(if $(FORMAT),--format '$(FORMAT)') $(if $(MODEL),--model '$(MODEL)') \
	$(if $(ROWS),--rows $(ROWS)) $(if $(NAME),--name $(NAME)) $(if $(PREVIOUS),--previous $(PREVIOUS)) \
	$(if $(WARM_START),--warm-start) $(if $(MERGED),--merged) $(foreach kind,$(GGUF),--gguf $(kind))
internalize: setup  ## a prompt of your own, to an adapter and a verdict: make internalize PROMPT=prompt.md [INPUTS=examples.jsonl] [MODEL=…]
	@$(if $(PROMPT),,echo "PROMPT: expected a file, as in make internalize PROMPT=examples/support/prompt.md" >&2; exit 1)
	$(SIGNED) python -m gcd.internalize $(ASKED)

ablations: setup  ## one thing changed at a time, two points at a time: make ablations [NAME=prompt_weight] [GRID=large]
	$(SIGNED) python -m gcd.experiments ablations $(if $(NAME),--name $(NAME)) $(if $(GRID),--grid $(GRID))

seeds: setup  ## repeat the trained rows of a task with other seeds, data and all
	$(SIGNED) python -m gcd.experiments seeds

bench: setup  ## measure speed and memory against plain reference code, after `make repro`
	python -m benchmarks

test: setup  ## run the tests (a few minutes)
	python -m pytest -m 'not slow'

test-slow: setup  ## run the tests that take longer
	python -m pytest -m slow

conformance: setup  ## compare with the original code's answers: make conformance GCD_REALDATA=folder [GCD_AGENTBENCH=checkout]
	python -m pytest tests/conformance

lint: setup  ## check style and types
	ruff check .
	ruff format --check .
	mypy

format: setup  ## rewrite the code in the house style
	ruff check --fix .
	ruff format .

lock: setup  ## compute constraints.txt anew from pyproject.toml (needs uv)
	uv pip compile --universal --extra dev pyproject.toml -o constraints.txt --no-header

clean:  ## remove .venv and unfinished work, keep results
	rm -rf .venv .work build *.egg-info
