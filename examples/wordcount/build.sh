#!/bin/sh
# Builds wordcount.wasm beside its source; see ../build-wasm.sh.
exec "$(dirname "$0")/../build-wasm.sh" wordcount/wordcount.c
