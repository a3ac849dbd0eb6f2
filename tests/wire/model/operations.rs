//! What can happen to a queue, and how often: the operations, and how they are made at random.

use super::{BATCHES, HOSTS, LINKS, WORKERS};
use ::queue::{DeadAction, WaitsIn};
use proptest::prelude::*;

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Open(usize),
    Push {
        batch: usize,
        links: Vec<usize>,
        dedup: bool,
    },
    /// A chunk that was pushed before, counted back from the last.
    PushAgain {
        batch: usize,
        back: usize,
    },
    /// A chunk whose predecessor is not there.
    PushGap(usize),
    /// A bare URL, as a person pushes it.
    PushBare(usize),
    Seal(usize),
    By(Who, Deed),
    /// Nobody hears of the worker for a lease.
    LeaseEnds(Who),
    /// Redis' clock was set back.
    LeaseFarAway(Who),
    Recover(Who),
    /// The worker dies, is recovered, and its successor starts.
    Crash(Who),
    /// All workers die at once, are recovered, and their successors start.
    FleetDies,
    /// The worker is killed and started again; its lease goes on.
    Restart(usize),
    /// The worker enters under a fresh name, if its name was struck off.
    Register(usize),
    /// Nobody ticked for long.
    Silence,
    /// Time passes for so many delayed jobs.
    MakeDue(usize),
    Pause(bool),
    /// The holds of one of those that anything is remembered of, and what workers that got no answer wait for, are over.
    HoldEnds(usize),
    /// And so long ago that it is forgotten.
    HostForgotten(usize),
    /// One start of each host, under a rate.
    StartPasses,
    /// A page of what waits is purged, and once more.
    Purge(WaitsIn),
    /// A page is read, and purged by a call that comes late.
    PageRead(WaitsIn),
    PurgeLate,
    /// What Redis goes back to.
    Saved,
    /// Redis restarts with what it had then; everybody else knows what he knows.
    RolledBack,
    /// What to do with which of each four dead jobs, by bits; and the same call again.
    Dead {
        action: DeadAction,
        which: u8,
    },
}

/// One of the workers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    /// Under its name of today.
    Now(usize),
    /// Under the name that it had before.
    Past(usize),
    /// One that holds jobs; nothing happens where there is none.
    Busy(usize),
}

#[derive(Debug, Clone)]
pub(super) enum Deed {
    Claim(usize),
    /// The answer is lost; the next thing that this worker does is to compare.
    ClaimUnheard(usize),
    /// With a number so far below the last one.
    ClaimLate(u64),
    /// What becomes of the jobs it holds, in the order of their claims; with `strangers`, jobs of others, jobs settled long
    /// ago and a field that nobody gave out are settled in the same call, and its own twice.
    Settle {
        choices: Vec<(Choice, Learnt)>,
        strangers: bool,
    },
    /// Asks for the targets of redirects, each so many ms ahead.
    Admit {
        hosts: Vec<(usize, u64)>,
        /// The answer is lost.
        unheard: bool,
    },
    SettleAgain,
    Heartbeat,
    Reconcile,
    /// The suspect that it holds alone; without one, jobs that are not its own.
    RunAlone,
    Unregister,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Choice {
    Keep,
    Store,
    Exists,
    Reject,
    Fail,
    RetryNow,
    RetryLater,
    Release,
    /// Its host may not be asked.
    Hold,
    /// It redirects to this one, which may not be asked.
    HoldFor(usize),
}

/// What an attempt teaches about the hosts that it was admitted to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Learnt {
    /// They were not asked.
    NotAsked,
    Answers,
    Refuses,
    /// With a time to wait.
    RefusesFor,
    NoAnswer,
}

/// What every worker asks for in a case: under `Quick` three starts are given out at once, under `Slow` one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Rate {
    #[default]
    Any,
    Slow,
    Quick,
}

impl Rate {
    pub(super) fn text(self) -> Option<&'static str> {
        match self {
            Rate::Any => None,
            Rate::Slow => Some("40/h"),
            Rate::Quick => Some("6.9/s"),
        }
    }

    /// Between two starts.
    pub(super) fn step_ms(self) -> Option<f64> {
        match self {
            Rate::Any => None,
            Rate::Slow => Some(90_000.0),
            Rate::Quick => Some(144.927),
        }
    }
}

pub(super) fn rate() -> impl Strategy<Value = Rate> {
    prop_oneof![2 => Just(Rate::Any), 1 => Just(Rate::Slow), 1 => Just(Rate::Quick)]
}

fn learnt() -> impl Strategy<Value = Learnt> {
    use Learnt::*;
    prop_oneof![4 => Just(NotAsked), 3 => Just(Answers), 2 => Just(Refuses), 1 => Just(RefusesFor), 2 => Just(NoAnswer)]
}

pub(super) fn choice() -> impl Strategy<Value = Choice> {
    use Choice::*;
    prop_oneof![
        2 => Just(Keep), 2 => Just(Store), 1 => Just(Exists), 1 => Just(Reject), 3 => Just(Fail), 2 => Just(RetryNow),
        2 => Just(RetryLater), 3 => Just(Release), 1 => Just(Hold), 2 => (0..HOSTS.len()).prop_map(HoldFor)
    ]
}

pub(super) fn who(past: u32, busy: u32) -> impl Strategy<Value = Who> {
    prop_oneof![
        2 => (0..WORKERS).prop_map(Who::Now),
        past => (0..WORKERS).prop_map(Who::Past),
        busy => (0..WORKERS).prop_map(Who::Busy),
    ]
}

pub(super) fn by(who: impl Strategy<Value = Who>, deed: impl Strategy<Value = Deed>) -> impl Strategy<Value = Op> {
    (who, deed).prop_map(|(who, deed)| Op::By(who, deed))
}

/// Simple ones first: shrinking goes that way. The weights are such that jobs come to three crashes now and then.
pub(super) fn op() -> impl Strategy<Value = Op> {
    let push = (0..BATCHES, prop::collection::vec(0..LINKS, 0..8), any::<bool>())
        .prop_map(|(batch, links, dedup)| Op::Push { batch, links, dedup });
    let push_again = (0..BATCHES, 0..3usize).prop_map(|(batch, back)| Op::PushAgain { batch, back });
    let pushing = prop_oneof![
        3 => (0..LINKS).prop_map(Op::PushBare),
        1 => (0..BATCHES).prop_map(Op::Open),
        8 => push,
        1 => push_again,
        1 => (0..BATCHES).prop_map(Op::PushGap),
        1 => (0..BATCHES).prop_map(Op::Seal),
    ];
    let settle = (prop::collection::vec((choice(), learnt()), 0..6), prop::bool::weighted(0.2))
        .prop_map(|(choices, strangers)| Deed::Settle { choices, strangers });
    let asked = prop::collection::vec((0..HOSTS.len(), prop::sample::select(vec![0, 150, 10_000])), 1..4);
    let admit = (asked, prop::bool::weighted(0.2)).prop_map(|(hosts, unheard)| Deed::Admit { hosts, unheard });
    let working = prop_oneof![
        5 => by(who(1, 4), admit),
        12 => by(who(0, 0), (0..=5usize).prop_map(Deed::Claim)),
        4 => by(who(0, 0), (1..=5usize).prop_map(Deed::ClaimUnheard)),
        1 => by(who(1, 0), (0..=5usize).prop_map(Deed::Claim)),
        1 => by(who(1, 1), (0..3u64).prop_map(Deed::ClaimLate)),
        12 => by(who(1, 12), settle),
        1 => by(who(1, 3), Just(Deed::SettleAgain)),
        1 => by(who(1, 1), Just(Deed::Reconcile)),
        8 => by(who(1, 16), Just(Deed::RunAlone)),
    ];
    let living = prop_oneof![
        4 => (0..WORKERS).prop_map(Op::Register),
        4 => by(who(1, 1), Just(Deed::Heartbeat)),
        1 => by(who(1, 1), Just(Deed::Unregister)),
        12 => who(0, 12).prop_map(Op::Crash),
        3 => Just(Op::FleetDies),
        2 => who(1, 2).prop_map(Op::LeaseEnds),
        4 => who(2, 2).prop_map(Op::Recover),
        1 => (0..WORKERS).prop_map(Op::Restart),
        2 => who(0, 1).prop_map(Op::LeaseFarAway),
        1 => Just(Op::Silence),
    ];
    let place = || prop_oneof![Just(WaitsIn::Ready), Just(WaitsIn::Delayed)];
    let times = prop_oneof![
        8 => (0..HOSTS.len()).prop_map(Op::HoldEnds),
        1 => (0..HOSTS.len()).prop_map(Op::HostForgotten),
        3 => Just(Op::StartPasses),
    ];
    let purging = prop_oneof![
        2 => place().prop_map(Op::Purge),
        2 => place().prop_map(Op::PageRead),
        2 => Just(Op::PurgeLate),
        1 => Just(Op::Saved),
        1 => Just(Op::RolledBack),
    ];
    let dead_action = prop_oneof![2 => Just(DeadAction::Retry), 1 => Just(DeadAction::Drop)];
    let others = prop_oneof![
        6 => (1..4usize).prop_map(Op::MakeDue),
        1 => Just(Op::Pause(true)),
        6 => Just(Op::Pause(false)),
        6 => (dead_action, 1..16u8).prop_map(|(action, which)| Op::Dead { action, which }),
    ];
    prop_oneof![8 => pushing, 20 => working, 12 => living, 4 => others, 8 => times, 2 => purging]
}

/// Mostly what hosts have to do with: jobs are claimed, their hosts refuse, holds end, and one tries a host for all.
pub(super) fn op_about_hosts() -> impl Strategy<Value = Op> {
    let push = prop::collection::vec(0..LINKS, 3..8).prop_map(|links| Op::Push { batch: 0, links, dedup: false });
    let settle =
        prop::collection::vec((choice(), learnt()), 5).prop_map(|choices| Deed::Settle { choices, strangers: false });
    let asked = prop::collection::vec((0..HOSTS.len(), prop::sample::select(vec![0, 150, 10_000])), 1..4);
    let admit = (asked, prop::bool::weighted(0.2)).prop_map(|(hosts, unheard)| Deed::Admit { hosts, unheard });
    let at_work = prop_oneof![
        8 => by(who(0, 0), (1..=5usize).prop_map(Deed::Claim)),
        1 => by(who(0, 0), (1..=5usize).prop_map(Deed::ClaimUnheard)),
        8 => by(who(0, 8), settle),
        3 => by(who(0, 2), admit),
    ];
    let times = prop_oneof![
        6 => (0..HOSTS.len()).prop_map(Op::HoldEnds),
        2 => (1..4usize).prop_map(Op::MakeDue),
        2 => Just(Op::StartPasses),
    ];
    prop_oneof![3 => push, 16 => at_work, 8 => times, 1 => who(0, 4).prop_map(Op::Crash), 3 => op()]
}
