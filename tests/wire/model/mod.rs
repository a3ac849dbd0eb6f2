//! The queue against a model of it in memory: random sequences of what programs, people and accidents do to a queue, and
//! after each step one atomic look at the whole of it, which has to be what the model says.
//!
//! `operations` says what can happen, `world` and `hosts` are the model, `driver` does the one and holds the queue against the other.
//! The model is the contract, not the scripts. Times are Redis' own: a look checks that they lie where they have to, and the model takes
//! them over. Whatever ends by itself is far away, until an operation says that its time has come.

mod driver;
mod hosts;
mod operations;
mod world;

use self::driver::{Bench, made_up_field};
use self::operations::{Op, Rate, op, op_about_hosts, rate};
use ::queue::LEASE;
use harness::Redis;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use std::collections::BTreeMap;
use std::time::Duration;

/// The end of a test case that is as it should be, or why it is not.
type Checked<T = ()> = Result<T, TestCaseError>;
/// A field of an in-flight hash: claim number and index.
type Order = (u64, u64);
type Counters = BTreeMap<String, i64>;

const WORKERS: usize = 3;
const BATCHES: usize = 2;
const LINKS: usize = 10;
const LEASE_MS: u64 = LEASE.as_millis() as u64;
/// Far longer than a case takes.
const LATER: Duration = Duration::from_secs(3600);
const HOSTS: [&str; 3] = ["a.example", "b.example", "c.example"];
/// Answers of 429 in a row for which waiting costs no attempt.
const FREE_REFUSALS: u32 = 1;
/// The first wait for a host that refuses, and the longest that it doubles to.
const FIRST_WAIT: Duration = Duration::from_secs(900);
const LONGEST_WAIT: Duration = LATER;

/// Runs a property on so many random sequences, fewer or more with PROPTEST_CASES. A failure shows the shortest sequence
/// found, and the seed under which the same sequences come again.
fn check(cases: u32, op: impl Strategy<Value = Op>, property: impl Fn(Rate, &[Op]) -> Checked) {
    let mut config = ProptestConfig { failure_persistence: None, max_shrink_iters: 4096, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let sequences = (rate(), prop::collection::vec(op, 1..90));
    // Held, or a server would be started and stopped for each case.
    let _redis = Redis::shared();
    // Made here, as it would use up random numbers of the first case that needs it.
    made_up_field();
    match TestRunner::new(config).run(&sequences, |(rate, ops)| property(rate, &ops)) {
        Ok(()) => {}
        Err(TestError::Fail(why, (rate, ops))) => {
            let ops: Vec<String> = ops.iter().enumerate().map(|(at, op)| format!("  {at}: {op:?}")).collect();
            panic!("{why}\nrate: {rate:?}\nops:\n{}\nthe same again: PROPTEST_RNG_SEED={seed}", ops.join("\n"));
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn the_queue_is_what_its_model_says() {
    check(160, op(), |rate, ops| Bench::new(rate).run(ops));
}

#[test]
fn every_job_ends_with_one_result() {
    check(64, op(), |rate, ops| {
        let mut bench = Bench::new(rate);
        bench.run(ops)?;
        bench.drain().map_err(|error| match error {
            TestCaseError::Fail(why) => {
                TestCaseError::fail(format!("after all ops, while the queue is drained: {why}"))
            }
            TestCaseError::Reject(why) => TestCaseError::Reject(why),
        })
    });
}

#[test]
fn hosts_are_asked_as_the_model_says() {
    check(120, op_about_hosts(), |rate, ops| Bench::new(rate).run(ops));
}
