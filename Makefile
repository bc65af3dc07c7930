# Vantrexia: `make run` runs the whole system, `make test` tests it. `make help` lists the rest.

SHELL := /bin/sh
GO    ?= go
TOOLS := bin/sqlc bin/staticcheck bin/workflowcheck

.DEFAULT_GOAL := help
.PHONY: help run build reproducible test lint generate histories fuzz chaos cluster test-cluster bench bench-go sbom licenses clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## run everything in this terminal, until Ctrl-C
	@$(MAKE) -s --no-print-directory -j2 bin/vantrexia bin/temporaldev
	@exec bin/vantrexia dev

build: bin/vantrexia ## build bin/vantrexia

reproducible: ## build the commit twice, in two directories and with an empty cache: are the binaries the same?
	GO="$(GO)" tools/reproducible.sh

sbom: bin/cyclonedx-gomod bin/vantrexia ## write bin/vantrexia.cdx.json: which modules are in bin/vantrexia, and their licences
	GOPROXY=off bin/cyclonedx-gomod bin -json -licenses -version "$$(git rev-parse HEAD)" -output bin/vantrexia.cdx.json bin/vantrexia # what was built is there

licenses: sbom ## write docs/licenses.md of it
	cd tools/supply && $(GO) run ./licenses <../../bin/vantrexia.cdx.json >../../bin/licenses.md
	mv bin/licenses.md docs/licenses.md

test: bin/temporaldev ## run every test, on a real PostgreSQL and a real Temporal
	$(GO) test -race -timeout 20m ./...
	cd tools/temporaldev && $(GO) test -trimpath ./...
	cd bench && $(GO) test ./...
	cd kms && $(GO) test ./...
	cd tools/deploycheck && $(GO) test -count=1 ./... # what it reads is outside of its module, where a cached result is blind

lint: $(TOOLS) bin/temporal-server ## check formatting, go vet, staticcheck, generated code, determinism, openapi.yaml, temporal-config, known vulnerabilities (GOVULNDB)
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet ./...
	bin/staticcheck ./...
	cd bench && $(GO) vet ./... && ../bin/staticcheck ./...
	cd kms && $(GO) vet ./... && ../bin/staticcheck ./...
	bin/sqlc diff --file db/sqlc.yaml
	bin/workflowcheck ./workflows
	@said=$$(bin/temporal-server validate-dynamic-config temporal-config/dynamicconfig.yaml); \
	if [ "$$said" != temporal-config/dynamicconfig.yaml ]; then echo "$$said"; exit 1; fi # it exits with 0 whatever it finds
	$(GO) test ./api -run '^TestOpenAPI'
	GO="$(GO)" tools/vulncheck.sh

generate: bin/sqlc ## write the code that sqlc makes of db/queries
	bin/sqlc generate --file db/sqlc.yaml

histories: bin/temporaldev ## record today's workflow histories, which every later version must replay
	$(GO) test ./worker -run TestRecordHistories -record $$(date +%Y-%m-%d)

FUZZTIME ?= 20s

fuzz: ## run each fuzzer for FUZZTIME, 20s by default
	@set -e; for package in ./api ./fhir; do \
		for name in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

chaos: bin/temporaldev bin/vantrexia ## kill every process for CHAOS_DURATION, 3m by default: is nothing lost, nothing sent twice? (CHAOS_SEED, CHAOS_EHR)
	@$(GO) build -o bin/chaos ./test/chaos
	@exec bin/chaos

CLUSTER_SERVERS := bin/temporal-server bin/temporal-sql-tool bin/temporal-ui

cluster: $(CLUSTER_SERVERS) bin/vantrexia ## run two APIs and three workers on a Temporal server on PostgreSQL, until Ctrl-C
	@$(GO) build -o bin/cluster ./test/cluster
	@exec bin/cluster

test-cluster: $(CLUSTER_SERVERS) ## replace processes of such a cluster while 1,000 readings go through it
	TEST_CLUSTER=1 $(GO) test -race -count=1 -timeout 20m ./test/cluster

bench: bin/temporal-server bin/temporal-sql-tool bin/temporaldev bin/vantrexia ## measure what a delivery takes, beside a bare loop, plain Temporal, River and Celery: 15 minutes (BENCH=-quick is one)
	@cd bench && $(GO) build -o ../bin/bench .
	@exec bin/bench $(BENCH)

bench-go: ## Go benchmarks: transform, assertion, request decoding, judge
	$(GO) test -run '^$$' -bench . -benchmem ./...

clean: ## remove what was built; .local/ with its data stays
	rm -rf bin

# The binary depends on the commit and on Go, and on neither the machine nor the directory: `make reproducible`.
# A copy without a history, or one that git does not trust, is built without naming its commit.
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$(shell git rev-parse --quiet --verify HEAD >/dev/null 2>&1 && echo true || echo false)

# go build knows what has changed, so it is asked every time.
.PHONY: bin/vantrexia
bin/vantrexia:
	@$(BUILD) -o $@ ./cmd/vantrexia

bin/temporaldev: $(wildcard tools/temporaldev/*.go) tools/temporaldev/go.mod tools/temporaldev/go.sum
	@tools/build-with-progress.sh "Building Temporal (first time only, about 5 minutes)" tools/temporaldev . $@ -trimpath -ldflags='-s -w'
	@touch $@

# The server and its schema tool as Temporal publishes them, of temporaldev's versions.
bin/temporal-server: tools/temporaldev/go.mod tools/temporaldev/go.sum
	@tools/build-with-progress.sh "Building the Temporal server (first time only, about 5 minutes)" tools/temporaldev go.temporal.io/server/cmd/server $@ -trimpath -ldflags='-s -w'
	@touch $@

bin/temporal-sql-tool: tools/temporaldev/go.mod tools/temporaldev/go.sum
	@tools/build-with-progress.sh "Building Temporal's schema tool (first time only)" tools/temporaldev go.temporal.io/server/cmd/tools/sql $@ -trimpath -ldflags='-s -w'
	@touch $@

bin/temporal-ui: tools/temporaldev/go.mod tools/temporaldev/go.sum
	@tools/build-with-progress.sh "Building the Temporal Web UI (first time only)" tools/temporaldev github.com/temporalio/ui-server/v2/cmd/server $@ -trimpath -ldflags='-s -w'
	@touch $@

bin/sqlc: tools/go.mod
	cd tools && $(GO) build -o ../bin/ github.com/sqlc-dev/sqlc/cmd/sqlc

bin/staticcheck: tools/go.mod
	cd tools && $(GO) build -o ../bin/ honnef.co/go/tools/cmd/staticcheck

bin/workflowcheck: tools/go.mod
	cd tools && $(GO) build -o ../bin/ go.temporal.io/sdk/contrib/tools/workflowcheck

# A module of their own: what they depend on changes often, and the tools above need not be built again for it.
bin/govulncheck: tools/supply/go.mod
	cd tools/supply && $(GO) build -o ../../bin/ golang.org/x/vuln/cmd/govulncheck
	@touch $@

bin/cyclonedx-gomod: tools/supply/go.mod
	cd tools/supply && $(GO) build -o ../../bin/ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	@touch $@
