# Thin: every target is one or two commands that also work by hand. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo test build core asan cuda install package format lint clean
PREFIX ?= /usr/local

# As many compile jobs as there are cores, but no more than one for every 2 GB of free memory.
JOBS ?= $(shell awk '/MemAvailable/ {m = int($$2 / 2000000)} END {print m < 1 ? 1 : m}' /proc/meminfo | \
          { read m; n=$$(nproc); echo $$((m < n ? m : n)); })

help: ## Lists these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: setup ## Trains a small mixture-of-experts model on this machine, on real text, and shows the result
	@scripts/build_program.sh $(JOBS)
	@scripts/demo.sh

# One test more than cores: those of launchers and faults wait more than they compute.
test: build ## Builds everything and runs every test
	@ctest --preset cpu --no-tests=error -j$$(($(JOBS) + 1))

build: setup ## Builds everything for CPUs into build/cpu
	@scripts/build.sh cpu $(JOBS)

core: setup ## Builds and tests the parts without torch (a minute or two)
	@scripts/build.sh core $(JOBS)
	@ctest --preset core --no-tests=error -j$(JOBS)

asan: setup ## The same under address and undefined-behaviour sanitizers
	@scripts/build.sh asan $(JOBS)
	@ctest --preset asan --no-tests=error -j$(JOBS) -LE oracle

cuda: setup ## Builds everything with CUDA kernels into build/cuda
	@scripts/build_cuda.sh $(JOBS)

install: setup ## Installs the program for CPUs, with all it needs, into PREFIX (/usr/local), below DESTDIR
	@scripts/build.sh cpu $(JOBS) --target moetron
	@cmake --install build/cpu --strip --prefix $(PREFIX) >build/install.log || { tail -n 20 build/install.log; exit 1; }
	@echo "installed below $(DESTDIR)$(PREFIX): bin/moetron, lib/moetron, share/moetron, share/doc/moetron"

package: setup ## Makes a Debian package and a Python wheel in dist/
	@scripts/build.sh cpu $(JOBS) --target moetron
	@scripts/package.sh

format: ## Formats every C++ source in place
	@scripts/lint.sh fix

lint: setup ## Checks formatting, layers and the torch-free folders with clang-tidy
	@scripts/lint.sh all

setup: ## Installs what is missing: Debian packages and .venv
	@scripts/setup.sh

clean: ## Removes what was built; keeps .venv and the demo's text
	rm -rf build
