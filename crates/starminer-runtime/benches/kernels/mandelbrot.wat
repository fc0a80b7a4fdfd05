;; The Mandelbrot set on a grid of 320 x 320 points, 200 iterations at most: f64 in registers, one branch.
(module
  (memory (export "memory") 1)
  (func (export "_start") (local $px i32) (local $py i32) (local $n i32) (local $total i32)
    (local $cx f64) (local $cy f64) (local $x f64) (local $y f64) (local $xx f64) (local $yy f64)
    (loop $rows
      (local.set $cy (f64.sub (f64.div (f64.convert_i32_u (local.get $py)) (f64.const 128)) (f64.const 1.25)))
      (local.set $px (i32.const 0))
      (loop $columns
        (local.set $cx (f64.sub (f64.div (f64.convert_i32_u (local.get $px)) (f64.const 128)) (f64.const 2)))
        (local.set $x (f64.const 0)) (local.set $y (f64.const 0)) (local.set $n (i32.const 0))
        (block $out
          (loop $iterate
            (local.set $xx (f64.mul (local.get $x) (local.get $x)))
            (local.set $yy (f64.mul (local.get $y) (local.get $y)))
            (br_if $out (f64.gt (f64.add (local.get $xx) (local.get $yy)) (f64.const 4)))
            (local.set $y (f64.add (f64.mul (f64.mul (f64.const 2) (local.get $x)) (local.get $y)) (local.get $cy)))
            (local.set $x (f64.add (f64.sub (local.get $xx) (local.get $yy)) (local.get $cx)))
            (br_if $iterate (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 200)))))
        (local.set $total (i32.add (local.get $total) (local.get $n)))
        (br_if $columns (i32.lt_u (local.tee $px (i32.add (local.get $px) (i32.const 1))) (i32.const 320))))
      (br_if $rows (i32.lt_u (local.tee $py (i32.add (local.get $py) (i32.const 1))) (i32.const 320))))
    (i32.store (i32.const 0) (local.get $total))))
