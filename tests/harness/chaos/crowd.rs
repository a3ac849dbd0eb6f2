//! Hosts as a long list of links has them: many, and each has bad periods of its own, in which it refuses, says nothing, is unavailable,
//! or breaks connections off.

use super::stage::{Stage, lock};
use crate::Origin;
use crate::origin::Mood;
use std::time::{Duration, Instant};

/// What is bad in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bad {
    Refusing,
    Silent,
    Unavailable,
    Resetting,
}

impl Bad {
    pub(super) const ALL: [Bad; 4] = [Bad::Refusing, Bad::Silent, Bad::Unavailable, Bad::Resetting];

    pub(super) fn name(self) -> &'static str {
        match self {
            Bad::Refusing => "429",
            Bad::Silent => "silence",
            Bad::Unavailable => "503",
            Bad::Resetting => "resets",
        }
    }

    /// Refusals say that nobody is to ask for so many seconds.
    fn mood(self, seconds: u64) -> Mood {
        match self {
            Bad::Refusing => Mood::Refusing(Some(seconds.to_string())),
            Bad::Silent => Mood::Silent,
            Bad::Unavailable => Mood::Unavailable(seconds.to_string()),
            Bad::Resetting => Mood::Resetting,
        }
    }
}

/// Bad periods of one host, until a time since the beginning.
pub(super) fn periods(stage: &Stage, origin: &Origin, seed: u64, until: Duration) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let good = Duration::from_millis(random.u64(10_000..40_000));
        if stage.started.elapsed() + good > until {
            return;
        }
        std::thread::sleep(good);
        let bad = Bad::ALL[random.usize(..Bad::ALL.len())];
        // A refusal may last longer than the period, or shorter.
        let (time, seconds) = (Duration::from_millis(random.u64(2000..6000)), random.u64(2..10));
        let met = || origin.requests_in_all() + origin.connections();
        let (before, from) = (met(), Instant::now());
        origin.set_mood(bad.mood(seconds));
        std::thread::sleep(time);
        origin.set_mood(Mood::Kind);
        // One that nobody came to proves nothing.
        if met() > before {
            *lock(&stage.bad_periods).entry(bad).or_default() += 1;
            stage.say(&format!("{}: {} for {:.1?}", origin.host(), bad.name(), from.elapsed()));
        }
    }
}
