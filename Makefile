# Every target sets up what it needs: `make demo` and `make test` work on a fresh clone.

VENV   ?= .venv
PYTHON ?= python3
# Overrides of the demo, as key=value
DEMO   ?=

BIN   := $(VENV)/bin
# The tests of a file share what they have trained
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# Touched last, so that an interrupted set-up starts again
STAMP := $(VENV)/.stamp

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full browser lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv (another: VENV=..., PYTHON=...)

demo: $(STAMP) ## Train and evaluate Mask R-CNN on the embedded dataset on the CPU
	$(BIN)/python scripts/lazyconfig_train.py --config-file lazy_configs/demo.py $(DEMO)

test: $(STAMP) browser ## Run the tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PARALLEL)

test-full: $(STAMP) browser ## Run the tests without samples, and record that they passed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PARALLEL) --full --record

browser: ## Install chromium for the tests of report.html, where apt-get and root can; test does it too
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing chromium, in which the tests open report.html."; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium chromium-driver >/dev/null; } \
			|| echo "chromium could not be installed; the tests that need it are skipped."; \
	else \
		echo "The tests that need chromium are skipped: apt-get install chromium chromium-driver"; \
	fi

lint: $(STAMP) ## Check style, types and the imports between rooms
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

clean: ## Remove caches and built packages; keeps .venv and output
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt d2timm/cli/install_detectron2.py
	@echo "Setting up $(VENV); PyTorch alone is several GB, so this takes a few minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/d2timm install-detectron2
	@touch $@
