// expect: E0594
use starminer_verify::*;

fn exchange(verified: &mut Verified, key: TaskKey) {
    verified.binding().task_key = Some(key);
}

fn main() {
    let _ = exchange as usize;
}
