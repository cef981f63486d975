# Everything from a fresh machine with Python 3.11+, git and make; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := 0.13.9
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
RUN_ARGS ?=
DOCKER ?= docker
IMAGE ?= localhost/rgsud-python:development
BUILD_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test integration lint compile lock image wheel

help:
	@echo "make demo         train, evaluate and export on photographs that come with the packages (6 minutes)"
	@echo "make test         every test that needs nothing but Python"
	@echo "make integration  the tests that need servers, containers and a browser (.ci/run installs them)"
	@echo "make lint         style and common mistakes"
	@echo "make compile      pipelines/compiled/*.yaml, after a change of the DAG"
	@echo "make lock         both requirements*.lock, after a change of a requirements*.in"
	@echo "make image        the container image; IMAGE=name DOCKER=podman BUILD_ARGS='--build-arg BASE_IMAGE=...'"
	@echo "make wheel        dist/*.whl"

$(STAMP): requirements.lock requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes \
		-r requirements.lock -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/rgsud run --preset demo $(RUN_ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not integration" -n 2 --dist loadfile --no-loadscope-reorder

integration: $(STAMP)
	$(BIN)/python -m pytest -m integration

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -W error -m compileall -q -f rgsud_lib components pipelines tests benchmarks

compile: $(STAMP)
	$(BIN)/python -m rgsud_pipelines.compile

lock: $(STAMP)
	$(LOCK) requirements.in -o requirements.lock
	$(LOCK) requirements-dev.in -o requirements-dev.lock

# The commit is that of the tree; what is not committed is marked.
image:
	$(DOCKER) build $(BUILD_ARGS) --build-arg COMMIT=$$(git describe --always --dirty --abbrev=40 --exclude='*') \
		--build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' rgsud_lib/__init__.py) -t $(IMAGE) .

wheel: $(STAMP)
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist
