#!/bin/sh
# Builds empty.wasm beside its source; see ../build-wasm.sh.
exec "$(dirname "$0")/../build-wasm.sh" empty/empty.c
