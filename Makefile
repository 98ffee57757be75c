# Few verbs; each installs what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TREE := .ci .dockerignore ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md Dockerfile LICENSE MANIFEST.in Makefile README.md \
	benchmarks docs packaging pyproject.toml requirements.lock requirements-runtime.lock setup.py spokes tests
EXTENSION_SOURCES := $(shell find spokes/_fastpath -name '*.pyx' -o -name '*.pxd')
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
TESTS ?=
BENCH ?=
OUTAGES ?=
IMAGE ?=
LABEL ?= run

.PHONY: help build demo test test-benchmarks lint bench outages asan tsan rpm check-rpm check-image install lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

build: $(VENV)/.built  ## .venv/bin/spokes and .venv/bin/spoke

$(VENV)/.installed: requirements.lock
	@PYTHON=$(PYTHON) ./packaging/system-packages.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.built: $(VENV)/.installed setup.py pyproject.toml $(EXTENSION_SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

demo: build  ## a server, a page and a client on this machine; Ctrl-C ends them
	@$(BIN)/python packaging/demo.py

test: build  ## the test-suite; TESTS="tests/wire -k name" for a part of it
	@PYTHON=$(PYTHON) ./packaging/system-packages.sh test || echo "tests that need them will be skipped" >&2
	$(BIN)/python -m tests $(if $(TESTS),-- $(TESTS))

test-benchmarks: build  ## every benchmark for a moment, so that none of them rots; minutes
	@PYTHON=$(PYTHON) ./packaging/system-packages.sh test bench
	$(BIN)/python -m tests benchmarks

lint: build  ## style and types, without changing anything; all of them, even when one finds something
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/mypy || status=1; \
	$(BIN)/mypy --strict --disable-error-code import-not-found benchmarks packaging/demo.py || status=1; \
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint $(EXTENSION_SOURCES) || status=1; \
	exit $$status

bench: build  ## all of benchmarks/README.md, hours; BENCH="--only http-keepalive --rounds 3" for a part, LABEL=name
	@./benchmarks/install-peers.sh
	$(BIN)/python -m benchmarks --write --label $(LABEL) $(BENCH)

outages: build  ## how soon a client is back, by kind of outage; root. OUTAGES="--rounds 8 --long" for a hundred
	$(BIN)/python -m benchmarks.outages $(OUTAGES)

# A copy of the tree, so that the ordinary build stays as it is. Python itself is not built with a sanitizer, hence
# tests/support/sanitized.py.
define sanitized_tree
	@mkdir -p build/$(1)
	@cd build/$(1) && rm -rf $(TREE)
	@cp -a $(TREE) build/$(1)/
	@find build/$(1)/spokes -name '*.so' -delete
	test -x build/$(1)/$(BIN)/python || $(PYTHON) -m venv build/$(1)/$(VENV)
	build/$(1)/$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	cd build/$(1) && SPOKES_SANITIZE=$(2) $(BIN)/pip install --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps --editable .
	cd build/$(1) && for packages in $(VENV)/lib/python3*/site-packages; do \
		cp tests/support/sanitized.py $$packages/spokes_sanitized.py && echo "import spokes_sanitized" \
			>$$packages/spokes_sanitized.pth; done
endef

# Python keeps memory until it exits, hence no leak check.
asan: build  ## the test-suite on a build with AddressSanitizer and UBSan
	$(call sanitized_tree,asan,address)
	cd build/asan && \
		SANITIZER_PRELOAD="$$(readlink -f $$(gcc -print-file-name=libasan.so)) $$(gcc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		$(BIN)/python -m pytest -p no:cacheprovider -n 4 --dist loadfile --ignore tests/benchmarks $(TESTS)

# Without address randomization, which ThreadSanitizer's memory layout does not bear on every kernel.
tsan: build  ## the engine's tests on a build with ThreadSanitizer; TESTS= as for test
	$(call sanitized_tree,tsan,thread)
	cd build/tsan && SANITIZER_PRELOAD="$$(readlink -f $$(gcc -print-file-name=libtsan.so))" \
		TSAN_OPTIONS="exitcode=1 log_path=report suppressions=$(CURDIR)/tests/support/tsan.supp" \
		setarch -R $(BIN)/python -m pytest -p no:cacheprovider $(or $(TESTS),tests/fastpath)

rpm:  ## dist/*.rpm with everything that it needs of Python; PYTHON=/usr/bin/python3 is the target's
	@./packaging/build-rpm.sh

install: build  ## programs, units, manual pages, completion below PREFIX=/usr/local (and DESTDIR)
	@BIN=$(BIN) PYTHON=$(PYTHON) PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" SYSCONFDIR="$(SYSCONFDIR)" ./packaging/install.sh

check-rpm:  ## install the newest dist/*.rpm in a clean root and run it there; as root
	@./packaging/check-rpm.sh

check-image:  ## build the Dockerfile without a daemon and run it; as root. IMAGE=--stand-in where no registry is reached
	@PYTHON="$$(command -v $(PYTHON))" ./packaging/check-image.sh $(IMAGE)

lock: build  ## write both locks again from pyproject.toml: all, and what a running Spokes needs of it
	@$(BIN)/uv --version >/dev/null 2>&1 || $(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --extra dev --generate-hashes --no-header --output-file requirements.lock \
		pyproject.toml packaging/build-requirements.txt
	$(BIN)/uv pip compile --quiet --constraint requirements.lock --generate-hashes --no-header \
		--output-file requirements-runtime.lock pyproject.toml

clean:  ## remove everything that these verbs made, except .bench and benchmarks/results
	rm -rf $(VENV) build dist .demo *.egg-info
	find spokes/_fastpath \( -name '*.c' -o -name '*.so' \) -delete
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
