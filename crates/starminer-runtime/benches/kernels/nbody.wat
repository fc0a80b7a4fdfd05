;; Eight bodies that attract each other, 60,000 steps: square roots and divisions of f64, and their places in memory.
;; A body is seven f64 at 1024 + 64 * i: x, y, z, vx, vy, vz, mass.
(module
  (memory (export "memory") 1)
  (func (export "_start") (local $i i32) (local $j i32) (local $step i32)
    (local $dx f64) (local $dy f64) (local $dz f64) (local $d2 f64) (local $pull f64)
    (loop $place
      (f64.store offset=1024 (local.get $i) (f64.convert_i32_u (i32.and (i32.mul (local.get $i) (i32.const 31)) (i32.const 255))))
      (f64.store offset=1032 (local.get $i) (f64.convert_i32_u (i32.and (i32.mul (local.get $i) (i32.const 17)) (i32.const 511))))
      (f64.store offset=1040 (local.get $i) (f64.convert_i32_u (local.get $i)))
      (f64.store offset=1072 (local.get $i) (f64.add (f64.const 1) (f64.convert_i32_u (local.get $i))))
      (br_if $place (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 64))) (i32.const 512))))
    (loop $steps
      (local.set $i (i32.const 0))
      (loop $bodies
        (local.set $j (i32.const 0))
        (loop $others
          (local.set $dx (f64.sub (f64.load offset=1024 (local.get $j)) (f64.load offset=1024 (local.get $i))))
          (local.set $dy (f64.sub (f64.load offset=1032 (local.get $j)) (f64.load offset=1032 (local.get $i))))
          (local.set $dz (f64.sub (f64.load offset=1040 (local.get $j)) (f64.load offset=1040 (local.get $i))))
          (local.set $d2 (f64.add (f64.add (f64.mul (local.get $dx) (local.get $dx)) (f64.mul (local.get $dy) (local.get $dy)))
            (f64.add (f64.mul (local.get $dz) (local.get $dz)) (f64.const 0.01))))
          (local.set $pull (f64.div (f64.mul (f64.load offset=1072 (local.get $j)) (f64.const 0.0001))
            (f64.mul (local.get $d2) (f64.sqrt (local.get $d2)))))
          (f64.store offset=1048 (local.get $i) (f64.add (f64.load offset=1048 (local.get $i)) (f64.mul (local.get $dx) (local.get $pull))))
          (f64.store offset=1056 (local.get $i) (f64.add (f64.load offset=1056 (local.get $i)) (f64.mul (local.get $dy) (local.get $pull))))
          (f64.store offset=1064 (local.get $i) (f64.add (f64.load offset=1064 (local.get $i)) (f64.mul (local.get $dz) (local.get $pull))))
          (br_if $others (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 64))) (i32.const 512))))
        (br_if $bodies (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 64))) (i32.const 512))))
      (local.set $i (i32.const 0))
      (loop $move
        (f64.store offset=1024 (local.get $i) (f64.add (f64.load offset=1024 (local.get $i)) (f64.load offset=1048 (local.get $i))))
        (f64.store offset=1032 (local.get $i) (f64.add (f64.load offset=1032 (local.get $i)) (f64.load offset=1056 (local.get $i))))
        (f64.store offset=1040 (local.get $i) (f64.add (f64.load offset=1040 (local.get $i)) (f64.load offset=1064 (local.get $i))))
        (br_if $move (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 64))) (i32.const 512))))
      (br_if $steps (i32.lt_u (local.tee $step (i32.add (local.get $step) (i32.const 1))) (i32.const 60000))))))
