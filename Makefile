# The commands of this repository. CMake builds; this file only says what is usually wanted.
#
#   make               the program: build/vmsight (installs nothing)
#   make demo          boots a guest and shows it from outside, beside its own answers
#   make check         each kind of test             make check-long   every cell of the matrix
#   make lint          format and static analysis    make check-extra  other kernels and ways, sanitizers, fuzzers
#                      (CI runs check, lint, check-extra)
#   make bench         speed                         make bench-peers  beside drgn
#   make bench-probes  what a hit of a probe costs, in instructions
#   make study         all techniques compared; the report: build/study (FULL=1: hours)
#   make study-consistency   how far views can be believed while a guest changes; an hour
#   make install       into DESTDIR and PREFIX       make deb          Debian packages
#   make docs          what the documents have from the program
#   make deps          installs what the above need (apt; root or sudo)
BUILD ?= build
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=
DEPS = packaging/deps.sh

all: need-build program

need-build:
	@$(DEPS) check build

program: OPTIONS = -DVMSIGHT_TESTS=OFF -DVMSIGHT_BENCH=OFF
program: configure
	cmake --build $(BUILD) -j $(JOBS) --target vmsight vmsight-guard vmsight-study vmsight-agent

everything: OPTIONS = -DVMSIGHT_TESTS=ON -DVMSIGHT_BENCH=ON -DVMSIGHT_UNIT_TESTS=ON
everything: configure
	cmake --build $(BUILD) -j $(JOBS)

# Without the benchmarks.
tests: OPTIONS = -DVMSIGHT_TESTS=ON -DVMSIGHT_BENCH=OFF -DVMSIGHT_UNIT_TESTS=ON
tests: configure
	cmake --build $(BUILD) -j $(JOBS)

configure:
	@cmake -S . -B $(BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(OPTIONS) $(CMAKE_FLAGS) \
	  $(shell test -e $(BUILD)/CMakeCache.txt || ! command -v ninja >/dev/null || echo -G Ninja)

# What the documents have from the program.
docs: program
	tests/docs.py $(BUILD) write

deps:
	$(DEPS) install build test lab deb

need-check:
	$(DEPS) install build test lab study

demo:
	$(DEPS) install build lab
	$(MAKE) program
	packaging/demo.sh $(BUILD)/vmsight

check: need-check
	$(MAKE) tests
	tests/run.sh $(BUILD) -LE "long|extra|sanitized" -j $(JOBS)

check-long: need-check
	$(MAKE) everything
	$(MAKE) sanitized
	tests/run.sh $(BUILD) $(ARGUMENTS) -j $(JOBS)

# Unit tests and fuzz corpora under ASan and UBSan; CTest runs them from $(BUILD).
sanitized:
	@cmake -S . -B $(BUILD)/sanitized -G Ninja -DVMSIGHT_SANITIZE=address,undefined -DVMSIGHT_BENCH=OFF \
	  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 $(CMAKE_FLAGS)
	cmake --build $(BUILD)/sanitized -j $(JOBS) --target unit_tests

# clang-format without a difference, clang-tidy without a warning; what was clean before is remembered.
lint: OPTIONS = -DVMSIGHT_TESTS=ON -DVMSIGHT_BENCH=OFF -DVMSIGHT_UNIT_TESTS=OFF
lint: need-lint configure
	cmake --build $(BUILD) -j $(JOBS) --target vmsight_probe_kvm
	tests/lint.py $(BUILD) $(JOBS)

need-lint:
	$(DEPS) install build test lint

# What CI runs besides: the tests on real guests of other kernels, ways and versions, the unit tests and corpora under
# ASan and UBSan, what has threads under TSan, and each fuzzer for FUZZ_SECONDS, beside its corpus.
FUZZ_SECONDS ?= 5
check-extra: need-check need-lint
	$(MAKE) tests
	$(MAKE) sanitized
	tests/run.sh $(BUILD) -L "extra|sanitized" -LE long -j $(JOBS)
	@cmake -S . -B $(BUILD)/threads -G Ninja -DVMSIGHT_SANITIZE=thread -DVMSIGHT_BENCH=OFF \
	  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 $(CMAKE_FLAGS)
	cmake --build $(BUILD)/threads -j $(JOBS) --target threaded_tests
	tests/run.sh $(BUILD)/threads -L threads -j $(JOBS)
	@cmake -S . -B $(BUILD)/fuzz -G Ninja -DVMSIGHT_FUZZ=ON -DVMSIGHT_BENCH=OFF -DCMAKE_CXX_COMPILER=clang++ \
	  -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 -DFUZZ_SECONDS=$(FUZZ_SECONDS)
	cmake --build $(BUILD)/fuzz -j $(JOBS) --target fuzzers
	tests/run.sh $(BUILD)/fuzz -L fuzz -j $(JOBS)

bench: need-check
	$(MAKE) everything
	bench/run.py $(BUILD)

# Needs root for what halts guests or reaches into QEMU. ARGUMENTS go to study/run.py, as --resume does.
study:
	$(DEPS) install build lab study
	$(MAKE) program
	study/run.py $(BUILD) $(if $(FULL),--full) $(ARGUMENTS)

study-consistency:
	$(DEPS) install build lab study
	$(MAKE) program
	study/consistency.py $(BUILD) $(ARGUMENTS)

bench-peers:
	$(DEPS) install build test lab peers
	$(MAKE) everything
	bench/peers.py $(BUILD)

bench-probes: need-check
	$(MAKE) program
	bench/probe_costs.py $(BUILD) $(ARGUMENTS)

install: all
	cmake --build $(BUILD) -j $(JOBS) --target vmsight vmsight-guard vmsight-study vmsight-agent libvmsight man
	DESTDIR=$(DESTDIR) cmake --install $(BUILD) --prefix $(PREFIX)

deb: need-build
	@$(DEPS) check deb
	$(MAKE) program
	cmake --build $(BUILD) -j $(JOBS) --target vmsight vmsight-guard vmsight-study vmsight-agent libvmsight man
	cd $(BUILD) && cpack -G DEB
	@ls $(BUILD)/*.deb

clean:
	rm -rf $(BUILD)

.PHONY: all need-build need-check need-lint program everything tests sanitized configure deps demo check check-long \
  check-extra docs lint bench study study-consistency bench-peers bench-probes install deb clean
