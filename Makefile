# Everything a newcomer needs; each target first installs what it lacks (scripts/setup.sh says what).

# For GNU's make and BSD's.
CARGO ?= cargo
RUN = PATH="$$PATH:$${CARGO_HOME:-$$HOME/.cargo}/bin"

.PHONY: build demo test test-kernels lint bench soak

build:
	scripts/setup.sh build
	$(RUN) CARGO=$(CARGO) scripts/build.sh

# Attaches to a program with a planted leak; ends with the report that names it.
demo: build
	scripts/demo.sh

# Every test, the live ones with each backend.
test:
	scripts/setup.sh build test
	CARGO=$(CARGO) scripts/test.sh

# The bpf backend under other kernels, in virtual machines; KERNELS="5.10 6.12" for some of them. The summary comes last.
test-kernels:
	scripts/setup.sh build test kernels
	CARGO=$(CARGO) scripts/test-kernels.sh $(KERNELS)

lint:
	scripts/setup.sh build test
	$(RUN) $(CARGO) fmt --all --check
	$(RUN) $(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(RUN) RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items

# Half an hour (SOAK_MINUTES=30) beside a server under load: fails unless memleax's memory stays flat, the numbers are exact and the targets well.
soak: build
	scripts/setup.sh test
	scripts/soak.sh

# The parts first, the whole last.
bench:
	scripts/setup.sh build test bench
	$(RUN) $(CARGO) bench --locked --bench tracker --bench unwind --bench recording
	$(RUN) $(CARGO) bench --locked --bench probes
	$(RUN) $(CARGO) bench --locked --bench pairs
