// expect: E0277
use starminer_verify::*;

fn forget(network: NetworkId) -> Expected {
    Expected { network, ..Default::default() }
}

fn main() {
    let _ = forget as usize;
}
