;; y = a * x + y over vectors of 65,536 f32, 1,500 times, with 128-bit SIMD.
(module
  (memory (export "memory") 10)
  (func (export "_start") (local $round i32) (local $i i32)
    (loop $fill
      (f32.store offset=65536 (local.get $i) (f32.convert_i32_u (i32.and (local.get $i) (i32.const 4095))))
      (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 262144))))
    (loop $rounds
      (local.set $i (i32.const 0))
      (loop $items
        (v128.store offset=327680 (local.get $i) (f32x4.add
          (v128.load offset=327680 (local.get $i))
          (f32x4.mul (f32x4.splat (f32.const 0.5)) (v128.load offset=65536 (local.get $i)))))
        (br_if $items (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 16))) (i32.const 262144))))
      (br_if $rounds (i32.lt_u (local.tee $round (i32.add (local.get $round) (i32.const 1))) (i32.const 1500))))))
