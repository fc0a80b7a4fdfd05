#!/bin/sh
# Builds primes.wasm beside its source; see ../build-wasm.sh.
exec "$(dirname "$0")/../build-wasm.sh" primes/primes.c
