//! What the system says about this process, under the names that all Prometheus clients use.
//!
//! A few lines instead of a crate: it is three numbers out of `/proc`, and where there is none they are left out.

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Numbers of this process; `None` where the system does not tell.
#[derive(Debug)]
pub(super) struct ProcessFacts {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) threads: Option<u64>,
}

impl ProcessFacts {
    /// Reads one small file and counts the entries of two folders.
    pub(super) fn read() -> ProcessFacts {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        // Pages: the whole size, then what is resident (proc_pid_statm(5)).
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = statm.split(' ').map(|pages| pages.parse::<u64>().ok());
        let mut bytes = || Some(pages.next()?? * rustix::param::page_size() as u64);
        let (virtual_bytes, resident_bytes) = (bytes(), bytes());
        let entries = |folder| std::fs::read_dir(folder).ok().map(|entries| entries.count() as u64);
        ProcessFacts {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes,
            virtual_bytes,
            // Without the one that reads the folder.
            open_fds: entries("/proc/self/fd").map(|count| count.saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            threads: entries("/proc/self/task"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_this_process() {
        let files: Vec<_> = (0..10).map(|_| std::fs::File::open("/dev/null").expect("a file")).collect();
        let after = ProcessFacts::read();
        if let Some(open) = after.open_fds {
            // Other tests open and close files at the same time.
            assert!(open >= 10, "{open} of which {}", files.len());
        }
        let (resident, whole) = (after.resident_bytes.unwrap_or(1 << 20), after.virtual_bytes.unwrap_or(1 << 30));
        assert!(resident > 100_000 && resident <= whole, "{after:?}");
        assert!(after.cpu_seconds > 0.0 && after.cpu_seconds < 10_000.0, "{after:?}");
    }
}
