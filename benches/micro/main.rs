//! Small parts, one at a time: `cargo bench --bench micro -- [NAME]`; `cargo test --benches` runs each once.
//!
//! Names: `panel/TYPE/ISA/ROWS` (one packed panel of weights against so many rows), `attention/ISA/ROWS` (query rows
//! against one page of keys and values), `elementwise/...`, `store/...`, `forward/...`. Criterion keeps its last figures under `target/criterion` and says what changed.

mod forward;
mod kernels;
#[path = "../person.rs"]
mod person;
mod store;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Half of criterion's usual time: there are two hundred of them.
fn short() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = micro;
    config = short();
    targets = kernels::panels, kernels::attention, kernels::others, store::store, forward::forward
}
criterion_main!(micro);
