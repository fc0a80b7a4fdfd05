;; Shell sort of 2^19 pseudo-random numbers: loads, stores and branches that cannot be predicted.
(module
  (memory (export "memory") 33)
  (func (export "_start") (local $i i32) (local $j i32) (local $gap i32) (local $state i32) (local $value i32)
    (local.set $state (i32.const 12345))
    (loop $fill
      (local.set $state (i32.add (i32.mul (local.get $state) (i32.const 1664525)) (i32.const 1013904223)))
      (i32.store offset=65536 (local.get $i) (i32.shr_u (local.get $state) (i32.const 3)))
      (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 2097152))))
    (local.set $gap (i32.const 1048576))
    (loop $gaps
      (local.set $i (local.get $gap))
      (loop $items
        (local.set $value (i32.load offset=65536 (local.get $i)))
        (local.set $j (local.get $i))
        (block $placed
          (loop $shift
            (br_if $placed (i32.lt_u (local.get $j) (local.get $gap)))
            (br_if $placed (i32.le_u (i32.load offset=65536 (i32.sub (local.get $j) (local.get $gap))) (local.get $value)))
            (i32.store offset=65536 (local.get $j) (i32.load offset=65536 (i32.sub (local.get $j) (local.get $gap))))
            (local.set $j (i32.sub (local.get $j) (local.get $gap)))
            (br $shift)))
        (i32.store offset=65536 (local.get $j) (local.get $value))
        (br_if $items (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 2097152))))
      ;; The next gap, a multiple of four bytes: about 4/9 of this one, the last one 4.
      (if (i32.gt_u (local.get $gap) (i32.const 4))
        (then
          (local.set $gap (i32.and (i32.div_u (i32.mul (i32.shr_u (local.get $gap) (i32.const 2)) (i32.const 16)) (i32.const 9)) (i32.const -4)))
          (if (i32.lt_u (local.get $gap) (i32.const 4)) (then (local.set $gap (i32.const 4))))
          (br $gaps))))))
