#!/bin/sh
# Builds runaway.wasm beside its source; see ../build-wasm.sh.
exec "$(dirname "$0")/../build-wasm.sh" runaway/runaway.c
