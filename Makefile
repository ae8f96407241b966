# A thin front for CMake. `make run` and `make test` do everything on a fresh Debian 12.
BUILD     := build
SANITIZED := build-sanitized
FUZZ      := build-fuzz
# Tests mostly wait: one more than there are processors.
JOBS      := $(shell expr $$(nproc) + 1)
ARGS      :=
FUZZ_SECONDS ?= 60
T         ?= process.drain
F         ?=

.PHONY: all deps build run test unit process one sanitized bench soak fuzz install clean lint

all: build

deps:
	@tests/support/deps

build: deps
	@cmake -S . -B $(BUILD) -G Ninja -DGWHOST_TESTS=OFF >$(BUILD).log 2>&1 || { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@ninja -C $(BUILD) --quiet gwhost

# exec: the gateway gets the terminal's signals itself, and the pid that the shell shows is its own.
run: build
	@exec $(BUILD)/gwhost run $(ARGS)

$(SANITIZED)/build.ninja: | deps
	cmake -S . -B $(SANITIZED) -G Ninja -DGWHOST_SANITIZE=ON -DGWHOST_WERROR=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo

test: build $(SANITIZED)/build.ninja
	ninja -C $(SANITIZED) --quiet
	GWHOST_RELEASE="$(CURDIR)/$(BUILD)/gwhost" ctest --test-dir $(SANITIZED) --output-on-failure -j $(JOBS); \
	  code=$$?; tests/support/summary $(SANITIZED)/Testing/Temporary/LastTest.log; exit $$code

sanitized: build $(SANITIZED)/build.ninja
	@ninja -C $(SANITIZED) --quiet

unit process: %: sanitized
	GWHOST_RELEASE="$(CURDIR)/$(BUILD)/gwhost" ctest --test-dir $(SANITIZED) --output-on-failure -j $(JOBS) \
	  $(if $(filter unit,$@),-LE,-L) process

# One file of process tests, and of these the tests whose names contain F: make one T=process.drain F="a lane"
one: sanitized
	@GWHOST_BINARY="$(CURDIR)/$(SANITIZED)/gwhost" GWHOST_RELEASE="$(CURDIR)/$(BUILD)/gwhost" GWHOST_SOURCE="$(CURDIR)" \
	  LUA_PATH="$(CURDIR)/tests/?.lua;;" lua5.4 tests/support/guarded.lua lua5.4 "tests/process/$(patsubst process.%,%,$(T)).lua" "$(F)"

lint: deps
	luacheck -q lua policies tests
	ninja -C $(SANITIZED) --quiet && run-clang-tidy -quiet -p $(SANITIZED) '^$(CURDIR)/src/.*'

bench: build
	@tests/support/deps bench
	tests/bench/run $(BUILD)

soak: build
	tests/bench/soak $(BUILD)

fuzz:
	@tests/support/deps fuzz
	CC=clang cmake -S . -B $(FUZZ) -G Ninja -DGWHOST_FUZZ=ON
	ninja -C $(FUZZ) --quiet fuzzers
	tests/fuzz/run $(FUZZ) $(FUZZ_SECONDS)

install:
	@tests/support/deps install
	@$(MAKE) --no-print-directory build
	ninja -C $(BUILD) --quiet
	cmake --install $(BUILD)

clean:
	rm -rf $(BUILD) $(SANITIZED) $(FUZZ)
