//! Small programs for tests, in text, so that each says what it does.

/// A preview-1 command that first counts `rounds` (three units of fuel each, and nothing else that could be waited for), and then
/// writes `pieces` times 64 KiB to `/out/big.bin`.
pub fn counts_then_writes(rounds: u64, pieces: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "path_open"
                (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 3)
            (data (i32.const 64) "big.bin")
            ;; One vector: 64 KiB from the second page on.
            (data (i32.const 16) "\00\00\01\00\00\00\01\00")
            (func (export "_start") (local $left i64) (local $pieces i32)
                (local.set $left (i64.const {rounds}))
                (block $counted (loop $count
                    (br_if $counted (i64.eqz (local.get $left)))
                    (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                    (br $count)))
                ;; The second granted directory is /out; 9: create and truncate; 64: the right to write.
                (if (call $open (i32.const 4) (i32.const 0) (i32.const 64) (i32.const 7) (i32.const 9)
                        (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 128)) (then unreachable))
                (local.set $pieces (i32.const {pieces}))
                (block $written (loop $piece
                    (br_if $written (i32.eqz (local.get $pieces)))
                    (if (call $write (i32.load (i32.const 128)) (i32.const 16) (i32.const 1) (i32.const 132))
                        (then unreachable))
                    (local.set $pieces (i32.sub (local.get $pieces) (i32.const 1)))
                    (br $piece)))))"#
    );
    wat::parse_str(text).expect("the text is a module")
}
