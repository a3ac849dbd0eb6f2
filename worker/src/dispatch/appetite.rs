//! The appetite: how many jobs to claim now. Pure.

use std::time::Duration;

/// Jobs are claimed ahead for so long. A claim under load takes 4 ms to come back, and to look for its objects as long
/// again; with half as much, slots stood empty for a tenth of the time. And one claim for many is cheaper than many for one.
const AHEAD: Duration = Duration::from_millis(20);
/// As many as that times the slots at most.
const AHEAD_FACTOR: usize = 4;
/// With more jobs than this times the slots whose settlement Redis has not confirmed, nothing more is begun.
const SETTLING_FACTOR: usize = 4;
/// And so many more, so that few slots do not wait for each settlement.
const SETTLING_MIN: usize = 64;

/// What a worker has to do, in jobs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Downloads that there may be at once.
    pub(super) slots: usize,
    /// Downloads that there are.
    pub(super) downloading: usize,
    /// Jobs that could start, were there slots for them, and those whose objects are being looked for.
    pub(super) startable: usize,
    /// Jobs whose attempt is over, and which Redis still has under this worker.
    pub(super) settling: usize,
    /// Jobs done, a second.
    pub(super) pace: f64,
}

impl Load {
    /// Whether a moment's wait makes the claim larger: few slots are free, others are busy and soon free as well, and there is
    /// nothing to start meanwhile.
    pub(super) fn is_worth_gathering(&self) -> bool {
        let free = self.slots.saturating_sub(self.downloading);
        free < self.slots.div_ceil(4) && self.downloading > 0 && self.startable == 0
    }

    /// How many jobs to claim: enough to fill the free slots, and those that get free before the next claim. `in_quick_lanes`
    /// is how many jobs wait here for hosts that get them done soon.
    pub(super) fn appetite(&self, in_quick_lanes: usize) -> usize {
        let Load { slots, startable, settling, pace, .. } = *self;
        let free = slots.saturating_sub(self.downloading);
        let ahead = ((pace * AHEAD.as_secs_f64()) as usize).min(AHEAD_FACTOR * slots);
        let wanted = (free + ahead).saturating_sub(startable);
        // If Redis is slow to confirm, nothing more is begun.
        if settling > SETTLING_FACTOR * slots + SETTLING_MIN {
            return 0;
        }
        // One claim for many is cheaper than many for one.
        if free == 0 && wanted < ahead.div_ceil(2).max(1) {
            return 0;
        }
        // Jobs that wait for a quick host, only not all at once, are soon done: those behind them wait no longer than that.
        wanted.min((2 * slots + ahead).saturating_sub(in_quick_lanes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(downloading: usize, startable: usize, settling: usize, pace: f64) -> Load {
        Load { slots: 64, downloading, startable, settling, pace }
    }

    #[test]
    fn free_slots_are_filled_and_a_little_is_claimed_ahead() {
        for (what, load, in_quick_lanes, wanted) in [
            ("an empty worker fills its slots", load(0, 0, 0, 0.0), 0, 64),
            ("half a worker fills the other half", load(32, 0, 0, 0.0), 0, 32),
            ("what can start fills slots as well", load(32, 20, 0, 0.0), 0, 12),
            ("at a pace, what gets free soon is claimed ahead", load(64, 0, 0, 2000.0), 0, 40),
            ("and more to start is not", load(64, 40, 0, 2000.0), 0, 0),
            ("a claim for a few of these is not worth it", load(64, 21, 0, 2000.0), 0, 0),
            ("a claim for half of these is", load(64, 20, 0, 2000.0), 0, 20),
            ("four times the slots ahead at most", load(64, 0, 0, 1e9), 0, 256),
            ("a full worker without a pace claims nothing", load(64, 0, 0, 0.0), 0, 0),
            ("quick lanes may hold twice the slots", load(0, 0, 0, 0.0), 100, 28),
            ("and no more", load(0, 0, 0, 0.0), 128, 0),
            ("settlements under way are nothing to wait for", load(0, 0, 320, 0.0), 0, 64),
            ("with too many of them nothing is begun", load(0, 0, 321, 0.0), 0, 0),
        ] {
            assert_eq!(load.appetite(in_quick_lanes), wanted, "{what}");
        }
    }

    #[test]
    fn a_claim_waits_a_moment_when_few_slots_are_free_and_more_are_about_to_be() {
        for (what, load, waits) in [
            ("one slot of many", load(63, 0, 0, 0.0), true),
            ("a quarter of them", load(48, 0, 0, 0.0), false),
            ("all of them", load(0, 0, 0, 0.0), false),
            ("none, and jobs to start", load(64, 1, 0, 0.0), false),
            ("none", load(64, 0, 0, 0.0), true),
        ] {
            assert_eq!(load.is_worth_gathering(), waits, "{what}");
        }
        let alone = Load { slots: 1, ..load(0, 0, 0, 0.0) };
        assert!(!alone.is_worth_gathering(), "a worker with one slot is not to wait for itself");
    }
}
