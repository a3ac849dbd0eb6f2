//! Elements of the queue, as anybody may push them: what can be read is written so that it reads the same, and nothing panics.

#![no_main]

use arbitrary::Arbitrary;
use common::job::{BatchId, Job, JobId};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Payload(&'a [u8]),
    Job { batch: u64, ordinal: u64, salt: u16, url: &'a str, attempts: u32, held: u32, last_reason: Option<&'a str> },
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Payload(payload) => {
            if let Ok(job) = Job::read(payload, 7) {
                reads_back(&job);
            }
        }
        Input::Job { batch, ordinal, salt, url, attempts, held, last_reason } => {
            let batch = BatchId::from_random(batch);
            let id = JobId::new(batch, ordinal, salt);
            assert_eq!(id.batch(), Some(batch));
            let mut job = Job::new(id, url.to_owned());
            (job.attempts, job.held, job.last_reason) = (attempts, held, last_reason.map(str::to_owned));
            reads_back(&job);
        }
    }
});

fn reads_back(job: &Job) {
    let written = job.write();
    // The scripts find the id by its place.
    assert!(written.starts_with(&format!("{{\"id\":\"{}\",\"url\":", job.id)), "{written}");
    let read = Job::read(written.as_bytes(), 8);
    assert_eq!(read.as_ref(), Ok(job), "{written}");
    assert_eq!(read.map(|job| job.write()), Ok(written));
}
