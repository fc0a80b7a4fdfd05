;; c = a * b for 256 x 256 matrices of f64, three times, the inner loop over k: loads, multiplications, additions.
(module
  (memory (export "memory") 25)
  (func (export "_start") (local $round i32) (local $i i32) (local $j i32) (local $k i32) (local $sum f64)
    (loop $fill
      (f64.store offset=65536 (i32.shl (local.get $i) (i32.const 3))
        (f64.div (f64.convert_i32_u (i32.and (local.get $i) (i32.const 1023))) (f64.const 1024)))
      (f64.store offset=589824 (i32.shl (local.get $i) (i32.const 3))
        (f64.div (f64.convert_i32_u (i32.and (i32.mul (local.get $i) (i32.const 7)) (i32.const 1023))) (f64.const 512)))
      (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 65536))))
    (loop $rounds
      (local.set $i (i32.const 0))
      (loop $rows
        (local.set $j (i32.const 0))
        (loop $columns
          (local.set $k (i32.const 0))
          (local.set $sum (f64.const 0))
          (loop $inner
            (local.set $sum (f64.add (local.get $sum) (f64.mul
              (f64.load offset=65536 (i32.shl (i32.add (i32.shl (local.get $i) (i32.const 8)) (local.get $k)) (i32.const 3)))
              (f64.load offset=589824 (i32.shl (i32.add (i32.shl (local.get $k) (i32.const 8)) (local.get $j)) (i32.const 3))))))
            (br_if $inner (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 1))) (i32.const 256))))
          (f64.store offset=1114112 (i32.shl (i32.add (i32.shl (local.get $i) (i32.const 8)) (local.get $j)) (i32.const 3)) (local.get $sum))
          (br_if $columns (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 256))))
        (br_if $rows (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 256))))
      (br_if $rounds (i32.lt_u (local.tee $round (i32.add (local.get $round) (i32.const 1))) (i32.const 3))))))
