//! Runs the bodies of other targets with streams of many reads of the largest size. This is slow,
//! so it is a separate target.

use super::{Input, Scale, connection, decode, differential, operations};

pub fn run(data: &[u8]) {
    let mut input = Input::new(data, Scale::Giant);
    match input.byte().map(|byte| byte % 4) {
        None => {}
        Some(0) => decode::run_all(&mut input),
        Some(1) => operations::run_all(&mut input),
        Some(2) => connection::run_all(&mut input),
        Some(_) => _ = differential::read(&mut input),
    }
}
