;; Thirty million rounds of 32-bit additions, rotations and exclusive ors, as hash functions are made of: no memory at all.
(module
  (memory (export "memory") 1)
  (func (export "_start") (local $n i32) (local $a i32) (local $b i32) (local $c i32) (local $d i32)
    (local.set $a (i32.const 0x61707865)) (local.set $b (i32.const 0x3320646e))
    (local.set $c (i32.const 0x79622d32)) (local.set $d (i32.const 0x6b206574))
    (loop $rounds
      (local.set $a (i32.add (local.get $a) (local.get $b)))
      (local.set $d (i32.rotl (i32.xor (local.get $d) (local.get $a)) (i32.const 16)))
      (local.set $c (i32.add (local.get $c) (local.get $d)))
      (local.set $b (i32.rotl (i32.xor (local.get $b) (local.get $c)) (i32.const 12)))
      (local.set $a (i32.add (local.get $a) (local.get $b)))
      (local.set $d (i32.rotl (i32.xor (local.get $d) (local.get $a)) (i32.const 8)))
      (local.set $c (i32.add (local.get $c) (local.get $d)))
      (local.set $b (i32.rotl (i32.xor (local.get $b) (local.get $c)) (i32.const 7)))
      (br_if $rounds (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 30000000))))
    (i32.store (i32.const 0) (i32.xor (i32.xor (local.get $a) (local.get $b)) (i32.xor (local.get $c) (local.get $d))))))
