//! Names to addresses: remembered for a while, one look-up of a name at a time, bounded in number and in time.
//!
//! It judges no address: the guard looks at what comes out of here at every use, remembered or not.
//!
//! The machine's own resolver (getaddrinfo) is asked, not one of our own: `/etc/hosts`, nsswitch, search domains, a changed
//! `resolv.conf` and a company's inner names then mean here what they mean to every other program. It tells no TTL, so that
//! answers live for a fixed, short time; and it blocks, so that it runs on threads, of which there is a bounded number.

use crate::metrics::Metrics;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long an answer is believed: no longer than the TTLs that hosts who move around give themselves.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long a failure is believed: 100,000 jobs of a host that is gone cost one look-up a second, and a retry, which waits one
/// second in the mean at first and more later, asks anew.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// Names that are remembered, in two generations of this many: strangers' lists name hosts without end.
const GENERATION: usize = 4096;
/// Look-ups at once. A thread's stack costs some 20 KB once it was used. A look-up that nobody waits for any more counts until
/// its thread is done: getaddrinfo cannot be broken off.
const AT_ONCE: usize = 128;

/// Why a name gave no address.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum LookupError {
    #[error("the name does not resolve: {0}")]
    Failed(Arc<str>),
    #[error("the look-up took too long")]
    TimedOut,
}

/// What a name turned out to be.
pub(super) type Answer = Result<Arc<[IpAddr]>, LookupError>;

/// Asks for a name; may block.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Resolves names. Clones share what they remember.
#[derive(Clone)]
pub(super) struct Resolver {
    shared: Arc<Inner>,
}

struct Inner {
    look_up: Box<LookUp>,
    /// For one look-up, with the wait for its turn.
    timeout: Duration,
    known_for: Duration,
    failed_for: Duration,
    at_once: Arc<Semaphore>,
    names: Mutex<Names>,
    metrics: Option<Arc<Metrics>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// One that asks the machine's resolver, and waits for an answer no longer than `timeout`.
    pub(super) fn system(timeout: Duration, metrics: Arc<Metrics>) -> Resolver {
        let look_up = |name: &str| Ok((name, 0).to_socket_addrs()?.map(|address: SocketAddr| address.ip()).collect());
        Resolver::counted(look_up, timeout, KNOWN_FOR, FAILED_FOR, Some(metrics))
    }

    /// One that asks `look_up`, on a thread where it may block.
    #[cfg(test)]
    pub(super) fn asking(
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
        timeout: Duration,
        known_for: Duration,
        failed_for: Duration,
    ) -> Resolver {
        Resolver::counted(look_up, timeout, known_for, failed_for, None)
    }

    fn counted(
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
        timeout: Duration,
        known_for: Duration,
        failed_for: Duration,
        metrics: Option<Arc<Metrics>>,
    ) -> Resolver {
        Resolver {
            shared: Arc::new(Inner {
                look_up: Box::new(look_up),
                timeout,
                known_for,
                failed_for,
                at_once: Arc::new(Semaphore::new(AT_ONCE)),
                names: Mutex::default(),
                metrics,
            }),
        }
    }

    /// The addresses of `name`, at least one. Cancel safe: others who wait for the same name go on with the same look-up.
    pub(super) async fn resolve(&self, name: &str) -> Answer {
        let pending = {
            let mut names = self.shared.names();
            match names.get(name) {
                Some(Entry::Known { until, answer }) if *until > Instant::now() => {
                    self.shared.count(|metrics| metrics.resolved(true));
                    return answer.clone();
                }
                // One that everybody gave up long ago could hold an old answer.
                Some(Entry::Pending { until, answer }) if *until > Instant::now() => answer.clone(),
                _ => {
                    let answer = Arc::clone(&self.shared).look_up(name.into()).boxed().shared();
                    names.insert(
                        name,
                        Entry::Pending { until: Instant::now() + self.shared.timeout, answer: answer.clone() },
                    );
                    answer
                }
            }
        };
        self.shared.count(|metrics| metrics.resolved(false));
        pending.await
    }
}

impl Inner {
    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, what: impl FnOnce(&Metrics)) {
        if let Some(metrics) = self.metrics.as_deref() {
            what(metrics);
        }
    }

    async fn look_up(self: Arc<Self>, name: Arc<str>) -> Answer {
        let started = Instant::now();
        let asked = Arc::clone(&self).ask(Arc::clone(&name));
        let answer = tokio::time::timeout(self.timeout, asked).await.unwrap_or(Err(LookupError::TimedOut));
        self.count(|metrics| metrics.looked_up(started.elapsed(), answer.is_ok()));
        let known_for = if answer.is_ok() { self.known_for } else { self.failed_for };
        self.names().insert(&name, Entry::Known { until: Instant::now() + known_for, answer: answer.clone() });
        answer
    }

    async fn ask(self: Arc<Self>, name: Arc<str>) -> Answer {
        let failed = |why: String| LookupError::Failed(why.into());
        let permit = Arc::clone(&self.at_once).acquire_owned().await.map_err(|error| failed(error.to_string()))?;
        let asked = tokio::task::spawn_blocking(move || {
            let _until_the_thread_is_done = permit;
            (self.look_up)(&name)
        });
        match asked.await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(failed("it has no address".into())),
            Ok(Ok(addresses)) => Ok(addresses.into()),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

enum Entry {
    Known { until: Instant, answer: Answer },
    Pending { until: Instant, answer: Shared<BoxFuture<'static, Answer>> },
}

/// What is remembered, in two generations: when the young one is full it becomes the old one, and the old one is forgotten.
/// So nothing is ever searched for what may go, and a name in use moves along.
#[derive(Default)]
struct Names {
    young: HashMap<Box<str>, Entry>,
    old: HashMap<Box<str>, Entry>,
}

impl Names {
    fn get(&self, name: &str) -> Option<&Entry> {
        self.young.get(name).or_else(|| self.old.get(name))
    }

    fn insert(&mut self, name: &str, entry: Entry) {
        if self.young.len() >= GENERATION && !self.young.contains_key(name) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name.into(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    fn address(n: usize) -> IpAddr {
        IpAddr::from([93, 184, (n >> 8) as u8, n as u8])
    }

    /// Answers with the number of the look-up; fails while `fails` says so.
    fn counting(
        fails: impl Fn(usize) -> bool + Send + Sync + 'static,
        failed_for: Duration,
    ) -> (Resolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let look_up = move |_: &str| {
            let n = counter.fetch_add(1, Ordering::SeqCst);
            if fails(n) { Err(io::Error::other("no such host")) } else { Ok(vec![address(n)]) }
        };
        (Resolver::asking(look_up, LONG, LONG, failed_for), asked)
    }

    #[test]
    fn an_answer_is_remembered_and_each_name_has_its_own() {
        runtime().block_on(async {
            let (resolver, asked) = counting(|_| false, LONG);
            for _ in 0..3 {
                assert_eq!(*resolver.resolve("a.example").await.expect("found"), [address(0)]);
            }
            assert_eq!(*resolver.resolve("b.example").await.expect("found"), [address(1)]);
            assert_eq!(asked.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn a_failure_is_remembered_briefly_and_a_later_try_can_succeed() {
        runtime().block_on(async {
            let (resolver, asked) = counting(|n| n == 0, LONG);
            assert!(resolver.resolve("a.example").await.is_err());
            assert!(resolver.resolve("a.example").await.is_err());
            assert_eq!(asked.load(Ordering::SeqCst), 1, "the second one was not asked for");
            let (resolver, _) = counting(|n| n == 0, Duration::ZERO);
            assert!(resolver.resolve("a.example").await.is_err());
            assert!(resolver.resolve("a.example").await.is_ok());
        });
        assert!(
            FAILED_FOR < KNOWN_FOR && FAILED_FOR <= Duration::from_secs(1),
            "the first retry comes within two seconds"
        );
    }

    #[test]
    fn look_ups_of_one_name_are_joined_even_when_the_first_to_ask_gives_up() {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let look_up = move |_: &str| {
            let n = counter.fetch_add(1, Ordering::SeqCst);
            let _ = gone.lock().expect("not poisoned").recv();
            Ok(vec![address(n)])
        };
        let resolver = Resolver::asking(look_up, LONG, LONG, LONG);
        runtime().block_on(async {
            let mut first = Box::pin(resolver.resolve("a.example"));
            assert!((&mut first).now_or_never().is_none(), "it waits");
            let mut others = futures_util::future::join_all((0..50).map(|_| resolver.resolve("a.example")));
            assert!((&mut others).now_or_never().is_none(), "they wait");
            drop(first);
            go.send(()).expect("somebody listens");
            for answer in others.await {
                assert_eq!(*answer.expect("found"), [address(0)]);
            }
            assert_eq!(asked.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn a_look_up_that_hangs_is_bounded_in_time_and_in_number() {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let running = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&running);
        let look_up = move |_: &str| {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = gone.lock().expect("not poisoned").recv();
            Ok(vec![address(0)])
        };
        let resolver = Resolver::asking(look_up, Duration::from_millis(50), LONG, LONG);
        let runtime = runtime();
        runtime.block_on(async {
            let names: Vec<String> = (0..AT_ONCE + 50).map(|n| format!("{n}.example")).collect();
            for answer in futures_util::future::join_all(names.iter().map(|name| resolver.resolve(name))).await {
                assert!(matches!(answer, Err(LookupError::TimedOut)), "{answer:?}");
            }
            assert!(running.load(Ordering::SeqCst) <= AT_ONCE, "given up, but not done");
        });
        drop(go);
    }

    #[test]
    fn names_without_end_are_not_remembered_without_end() {
        runtime().block_on(async {
            let (resolver, asked) = counting(|_| false, LONG);
            resolver.resolve("first.example").await.expect("found");
            for n in 0..3 * GENERATION {
                let entry = Entry::Known { until: Instant::now() + LONG, answer: Ok(Arc::from([address(n)])) };
                resolver.shared.names().insert(&format!("{n}.example"), entry);
                let names = resolver.shared.names();
                assert!(names.young.len() + names.old.len() <= 2 * GENERATION);
            }
            resolver.resolve("first.example").await.expect("found");
            assert_eq!(asked.load(Ordering::SeqCst), 2, "forgotten, and asked for again");
        });
    }
}
