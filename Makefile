# Thin names for commands that README.md and CONTRIBUTING.md also print raw. A missing .venv is made by whatever runs first.
PYTHON ?= python3
WORKERS ?= 2
# On Linux pip takes the CUDA build of PyTorch, which is large. For the CPU build:
#   make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN = .venv/bin
# Modules are compiled once, also where the shell says otherwise: each of the many processes of a test would do it anew
export PYTHONDONTWRITEBYTECODE =
# Four in five of the installed modules are never imported: the others are compiled when they first are, not all of them by pip
PIP = $(BIN)/python -m pip install --no-compile $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Tests share one cache inside the checkout, and ask the network for nothing
TEST_ENV = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 SENTIMENT_NB_CACHE="$(CURDIR)/.cache"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart model model-wheel test test-all check lab export clean-notebooks readme docs site dist constraints locks base-image sbom audit

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-16s %s\n", $$1, $$2}' Makefile

quickstart: .venv/.installed-quickstart ## Train, evaluate and try a sentiment model: the whole job, in minutes
	$(BIN)/sentiment-nb quickstart

model: .venv/.installed-quickstart ## Train the general model as long as it pays, for hours; an interrupted run goes on
	$(BIN)/sentiment-nb train general --model minilm --out models/general --epochs 3 --batch-size 16 --truncation head+tail
	$(BIN)/sentiment-nb export models/general --data data/general
	$(BIN)/sentiment-nb evaluate models/general data/general

# Runs a command and notes its seconds under a name, for the table at the end
TIMES = .cache/times
timed = @mkdir -p .cache; start=$$(date +%s); $(2); status=$$?; echo "$$(( $$(date +%s) - start )) s  $(1)" >> $(TIMES); exit $$status

# A file of tests stays with one worker, which so starts its servers and browser once; the chapters' models are made by the first
test: .venv/.installed-dev check ## Run the tests and every notebook
	$(call timed,tests,$(TEST_ENV) $(BIN)/pytest tests -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder --timeout 600 --durations 20)
	$(call timed,notebooks,$(TEST_ENV) $(BIN)/python tests/chapters.py $(WORKERS))
	@cat $(TIMES); rm $(TIMES)

test-all: test .venv/.installed-ray .venv/.installed-spark ## The same, then the long checks; SENTIMENT_NB_DATA names a folder with the large data sets
	$(TEST_ENV) $(BIN)/pytest tests -m slow --timeout 7200 --durations 0 --durations-min 20

check: .venv/.installed-dev ## Lint notebooks, tests and scripts
	$(BIN)/ruff check .

lab: .venv/.installed-dev ## Open the chapters in JupyterLab
	$(BIN)/jupyter lab --config jupyter_server_config.py nbs/00_core.ipynb

export: .venv/.installed-dev ## Write sentiment_nb/ and nbs/nbdev.yml from the notebooks and settings.ini
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python -c "from nbdev.quarto import refresh_quarto_yml; refresh_quarto_yml()"

clean-notebooks: .venv/.installed-dev ## Drop counts and metadata from the notebooks, keep their outputs
	$(BIN)/nbdev_clean

readme: .venv/.installed-dev ## Write README.md from nbs/index.ipynb
	$(BIN)/python tests/readme.py

docs: .venv/.installed-dev ## Build the docs site into _docs/ (needs Quarto)
	@command -v quarto >/dev/null || { echo "make docs needs Quarto: https://quarto.org/docs/get-started/" >&2; exit 1; }
	$(BIN)/nbdev_docs

site: .venv/.installed-dev ## Build the same pages into _docs/ without Quarto
	$(BIN)/python docs/build.py

dist: .venv/.installed-dev ## Build the wheel and the source archive and check them before a release
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	@if $(BIN)/python -m zipfile -l dist/*.whl | grep -E '\.(ipynb|csv|tsv|parquet|jsonl|safetensors|onnx|skops) '; \
	then echo "The wheel holds the files above; it may hold neither notebooks, data nor weights." >&2; exit 1; fi

model-wheel: .venv/.installed-dev ## Build the wheel with the default model from models/general
	$(BIN)/python deploy/model_wheel.py models/general dist
	$(BIN)/twine check --strict dist/sentiment_nb_model*

constraints: ## Renew constraints.txt: the newest versions that fit each other, from a fresh environment
	rm -rf .venv-fresh
	$(PYTHON) -m venv .venv-fresh
	.venv-fresh/bin/python -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e ".[dev]"
	{ sed -n '/^#/p' constraints.txt; .venv-fresh/bin/python -m pip freeze --exclude-editable | \
	  grep -Ev '^(nvidia-|cuda-|triton)' | sed -E 's/^(torch==[^+]*)\+.*/\1/'; } > .venv-fresh/constraints.txt
	mv .venv-fresh/constraints.txt constraints.txt
	rm -rf .venv-fresh

# Versions are those of constraints.txt, hashes those that PyPI names for all files of a version, whatever the processor
LOCK = .venv-locks/bin/uv pip compile --quiet --no-config --default-index https://pypi.org/simple --generate-hashes --no-annotate \
	--python-version 3.11 --python-platform linux --custom-compile-command "make locks" -c constraints.txt
LOCKS = deploy/locks

locks: ## Renew deploy/locks: what the image and a release install, with hashes
	$(PYTHON) -m venv .venv-locks
	.venv-locks/bin/python -m pip install uv
	$(LOCK) setup.py -o $(LOCKS)/api.txt
	$(LOCK) setup.py --extra app -o $(LOCKS)/app.txt
	$(LOCK) $(LOCKS)/build.in -o $(LOCKS)/build.txt
	$(LOCK) $(LOCKS)/tools.in -o $(LOCKS)/tools.txt
	rm -rf .venv-locks

base-image: ## Pin the image's base to the digest that its tag has today (needs Docker with buildx, and the network)
	@tag="$$(sed -nE 's/^ARG BASE=([^@]*).*/\1/p' Dockerfile)"; \
	digest="$$(docker buildx imagetools inspect "$$tag" --format '{{.Manifest.Digest}}')" && \
	case "$$digest" in sha256:*) sed -i.bak -E "s|^ARG BASE=.*|ARG BASE=$$tag@$$digest|" Dockerfile && rm Dockerfile.bak;; \
	*) echo "no digest for $$tag: $$digest" >&2; exit 1;; esac; grep '^ARG BASE=' Dockerfile

.venv-tools/bin/python: $(LOCKS)/tools.txt
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --require-hashes -r $(LOCKS)/tools.txt

sbom: .venv-tools/bin/python ## Describe what the service needs as dist/sbom.json, in CycloneDX
	mkdir -p dist
	.venv-tools/bin/cyclonedx-py requirements $(LOCKS)/api.txt --output-reproducible --output-format JSON -o dist/sbom.json

audit: .venv-tools/bin/python ## Ask for known weaknesses of all that is pinned (needs the network)
	.venv-tools/bin/pip-audit --disable-pip --require-hashes -r $(LOCKS)/app.txt
	.venv-tools/bin/pip-audit --disable-pip --require-hashes -r $(LOCKS)/tools.txt
	.venv-tools/bin/pip-audit --disable-pip --no-deps -r constraints.txt

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3,11))' || { \
	echo "sentiment_nb needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# `quickstart` is a part of `dev`: whoever has installed the whole does not install the part again
.venv/.installed-%: settings.ini setup.py constraints.txt | .venv/bin/python
	$(call timed,installing,$(PIP) -c constraints.txt -e ".[$*]")
	@touch $@ .venv/.installed-quickstart
