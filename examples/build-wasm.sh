#!/bin/sh
# Builds every wasm program of examples/ with Debian 12's own packages, or checks that the committed binaries are what the sources give.
#
#   apt-get install clang lld llvm wasi-libc libclang-rt-dev-wasm32
#   examples/build-wasm.sh                    builds all, each .wasm beside its .c
#   examples/build-wasm.sh wordcount/wordcount.c …   builds these
#   examples/build-wasm.sh --check [SOURCE…]  builds in a temporary folder, compares with what is committed, exit 1 if they differ
#
# The same compiler, linker and libc give the same bytes, wherever the tree lies: nothing of path, time or user gets in.
set -eu
cd "$(dirname "$0")"

check=no
if [ "${1-}" = --check ]; then
    check=yes
    shift
fi
if [ $# -eq 0 ]; then
    set -- wordcount/wordcount.c runaway/runaway.c empty/empty.c primes/primes.c hostile/*.c
fi

# CLANG may name another compiler; the sums in the READMEs hold for Debian's clang 14 and its wasi-libc.
clang=${CLANG:-clang}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# --stack-first: a stack that overflows runs out of memory and traps instead of overwriting data.
# heap-first.c: see there; without it these programs corrupt their own heap under a preview-1 adapter.
compile() {
    "$clang" --target=wasm32-wasi -std=gnu11 -O2 -Wall -Wextra -Werror -Wno-unused-parameter \
        -ffile-prefix-map="$PWD"=. -fno-ident \
        -Wl,--strip-all -Wl,--stack-first -Wl,-z,stack-size=262144 \
        -o "$2" "$1" heap-first.c
}

status=0
for source in "$@"; do
    case $source in
    *.c) ;;
    *)
        echo "build-wasm.sh: $source is not a C file of examples/" >&2
        exit 2
        ;;
    esac
    binary=${source%.c}.wasm
    built=$out/$(basename "$binary")
    compile "$source" "$built"
    if [ $check = no ]; then
        install -m 644 "$built" "$binary"
    elif ! cmp -s "$built" "$binary"; then
        echo "differs from its source: $binary" >&2
        status=1
    fi
    printf '%s  %s  %s bytes\n' "$(sha256sum <"$built" | cut -d' ' -f1)" "$binary" "$(stat -c %s "$built")"
done
exit $status
