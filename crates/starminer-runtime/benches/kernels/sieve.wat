;; Counts the primes below 2^21, ten times over: byte stores with a stride.
(module
  (memory (export "memory") 33)
  (func (export "_start") (local $round i32) (local $i i32) (local $j i32) (local $count i32)
    (loop $rounds
      (memory.fill (i32.const 65536) (i32.const 1) (i32.const 2097152))
      (local.set $count (i32.const 0))
      (local.set $i (i32.const 2))
      (loop $numbers
        (if (i32.load8_u offset=65536 (local.get $i))
          (then
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (local.set $j (i32.add (local.get $i) (local.get $i)))
            (block $done
              (loop $multiples
                (br_if $done (i32.ge_u (local.get $j) (i32.const 2097152)))
                (i32.store8 offset=65536 (local.get $j) (i32.const 0))
                (local.set $j (i32.add (local.get $j) (local.get $i)))
                (br $multiples)))))
        (br_if $numbers (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2097152))))
      (i32.store (i32.const 0) (local.get $count))
      (br_if $rounds (i32.lt_u (local.tee $round (i32.add (local.get $round) (i32.const 1))) (i32.const 10))))))
