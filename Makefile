# Everything a newcomer needs; each target first installs what it lacks (scripts/setup.sh says what).

export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo

.PHONY: build demo test lint bench

build:
	scripts/setup.sh build
	CARGO=$(CARGO) scripts/build.sh

# Attaches to a program with a planted leak; ends with the report that names it.
demo: build
	scripts/demo.sh

# The live tests that name their backend themselves; all others run with ptrace and with bpf.
OF_ONE_BACKEND = backend harness tracing uprobes
space := $() $()

# The documentation's examples first, then the bpf backend on real processes, so that the summary of all other tests comes last.
test:
	scripts/setup.sh build test
	$(CARGO) test --locked --workspace --doc --quiet
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -ex; \
		MEMLEAX_TEST_BACKEND=bpf $(CARGO) nextest run --locked --no-fail-fast --test live \
			-E 'not test(/^($(subst $(space),|,$(OF_ONE_BACKEND)))::/)'; \
		$(CARGO) nextest run --locked --workspace --no-fail-fast; \
	else \
		set -ex; \
		MEMLEAX_TEST_BACKEND=bpf $(CARGO) test --locked --test live -- $(OF_ONE_BACKEND:%=--skip %::); \
		$(CARGO) test --locked --workspace --lib --bins --tests; \
	fi

lint:
	scripts/setup.sh build test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items

# The parts first, the whole last.
bench:
	scripts/setup.sh build test bench
	$(CARGO) bench --locked --bench tracker --bench unwind
	$(CARGO) bench --locked --bench probes
	$(CARGO) bench --locked --bench pairs
