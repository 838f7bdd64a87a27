# Everything here runs from nothing: each target makes its own virtual environment first.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test fuzz lint docs docs-serve house models-page compatibility train-toy study study-small models-study peers-small peers-tuning peers-study axes-study passes-study pictures release comfyui clean

demo: $(READY)  ## the main job: one prompt, three seeds, without and with the method, and a report
	$(BIN)/enhance-a-video demo --out demo-out --force

test: $(READY)  ## all tests, a file at a time on each of two cores
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

fuzz: $(READY)  ## command lines and Python calls, bad, odd and good: none may end in a traceback or in silence
	$(BIN)/python -m tests.fuzz

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet src tests benchmarks examples integrations training && $(BIN)/mypy

docs: $(READY)  ## the documentation site into site/, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

docs-serve: $(READY)  ## the same at http://127.0.0.1:8000, built again at each change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

house: $(READY)  ## docs/reference/house.svg from the code
	$(BIN)/python benchmarks/house.py --out docs/reference/house.svg

models-page: $(READY)  ## docs/reference/models.md from the rows
	$(BIN)/python -m enhance_a_video.models > docs/reference/models.md

compatibility: $(READY)  ## docs/reference/compatibility.md again: every way of running models, tested and listed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,compatibility]'
	$(BIN)/pytest tests/compatibility --write-docs

train-toy: $(READY)  ## train the embedded model again (hours)
	$(BIN)/python -m training.train --out runs/toy

study: $(READY)  ## the packaged model at 20 steps by strength, 200 prompts (docs/results/index.md, section 6); resumable
	$(BIN)/enhance-a-video study studies/sweep.yaml --out runs/study --workers $(WORKERS)

study-small: $(READY)  ## section 1 of docs/results/index.md scaled down, in under ten minutes on two cores
	$(BIN)/enhance-a-video study studies/small.yaml --out runs/study-small --workers $(WORKERS)
	$(BIN)/python benchmarks/across_models.py studies/small.yaml runs/study-small

RESULTS := runs/models/study.sqlite

$(RESULTS): studies/results/models.sqlite.xz
	mkdir -p runs/models && $(PYTHON) -c "import lzma, sys; sys.stdout.buffer.write(lzma.open('$<').read())" > $@

models-study: $(READY) $(RESULTS)  ## three models (hours); goes on from the clips that came with the repository
	$(BIN)/enhance-a-video study studies/models.yaml --out runs/models --workers $(WORKERS)
	$(BIN)/python benchmarks/across_models.py studies/models.yaml runs/models --split 125 --chosen "odds 2" \
	    --out docs/results/models.md --picture docs/results/models.png --price docs/results/price.png
	$(BIN)/python benchmarks/cases.py studies/models.yaml runs/models --setting "odds 2" --out docs/results/cases.png

peers-small: $(READY)  ## other training-free methods beside odds: the packaged model, 12 prompts, a few minutes
	$(BIN)/enhance-a-video study studies/peers-small.yaml --out runs/peers-small --workers $(WORKERS)
	$(BIN)/python benchmarks/peers.py studies/peers-small.yaml runs/peers-small --picture runs/peers-small/peers.png

runs/%/study.sqlite: studies/results/%.sqlite.xz
	mkdir -p $(@D) && $(PYTHON) -c "import lzma, sys; sys.stdout.buffer.write(lzma.open('$<').read())" > $@

peers-tuning: $(READY) runs/peers-tuning/study.sqlite  ## how the knobs in studies/peers.yaml were chosen; its clips come with the repository
	$(BIN)/enhance-a-video study studies/peers-tuning.yaml --out runs/peers-tuning --workers $(WORKERS)
	$(BIN)/python benchmarks/peers.py studies/peers-tuning.yaml runs/peers-tuning --trials

peers-study: $(READY) runs/peers/study.sqlite  ## other training-free methods beside odds on three models (hours); goes on from the clips that came with the repository
	$(BIN)/enhance-a-video study studies/peers.yaml --out runs/peers --workers $(WORKERS)
	$(BIN)/python benchmarks/peers.py studies/peers.yaml runs/peers --picture docs/results/peers.png

axes-study: $(READY) runs/axes/study.sqlite  ## odds on every axis on two models (hours); goes on from the clips that came with the repository
	$(BIN)/enhance-a-video study studies/axes.yaml --out runs/axes --workers $(WORKERS)
	$(BIN)/python benchmarks/axes.py studies/axes.yaml runs/axes

passes-study: $(READY) runs/passes/study.sqlite  ## odds in both passes of guidance or in the conditional one, at two weights (hours); goes on from its clips
	$(BIN)/enhance-a-video study studies/passes.yaml --out runs/passes --workers $(WORKERS)
	$(BIN)/python benchmarks/axes.py studies/passes.yaml runs/passes --each

pictures: $(READY)  ## README's pictures again, from drawn clips, and the guide's drawings; a quarter of an hour on two cores the first time
	$(BIN)/python benchmarks/pictures.py --out docs/pictures --clips runs/pictures
	$(BIN)/python benchmarks/drawings.py --out docs/pictures

release: $(READY)  ## the wheel, and the two models that are too large for it, into dist/
	$(BIN)/python -m build --wheel --outdir dist .
	for model in joint temporal; do tar -czf dist/enhance-a-video-model-$$model.tar.gz -C models $$model; done

comfyui:  ## the ComfyUI node pack with the library inside, to be unpacked in custom_nodes/, into dist/
	$(PYTHON) integrations/comfyui_archive.py

# CPU torch is what was tested; a torch that is already in reach of pip is taken at the pinned version.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade-strategy only-if-needed -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out runs build dist site
