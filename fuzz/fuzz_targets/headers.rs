//! Beginnings of bodies in arbitrary parts: the verdict is that over the body in one piece, and nothing panics.

#![no_main]

use arbitrary::Arbitrary;
use common::media::{MediaType, MediaTypes};
use content::{Demands, Inspector};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    every_type: bool,
    min_size: Option<(u8, u8)>,
    pixels_max: Option<u16>,
    /// Lengths of the parts, less one, in turn.
    parts: [u8; 3],
    /// More than is looked at of any body follows.
    is_long: bool,
    body: &'a [u8],
}

// The inspector survives what it calls when that panics; the fuzzer ends at any panic, caught or not.
fuzz_target!(|input: Input<'_>| {
    let types = if input.every_type { MediaTypes::from_iter(MediaType::ALL) } else { MediaTypes::default() };
    let min_size = input.min_size.map(|(width, height)| (width.into(), height.into()));
    let demands = Demands { types, min_size, pixels_max: input.pixels_max.map(u64::from) };
    let mut body = input.body.to_vec();
    if input.is_long {
        body.resize(body.len() + (64 << 10), 0x55);
    }

    let mut whole = Inspector::new(demands);
    let verdict = whole.feed(&body).and_then(|()| whole.finish());

    let mut inspector = Inspector::new(demands);
    let mut rest = body.as_slice();
    let mut result = Ok(());
    for part in input.parts.into_iter().cycle() {
        if rest.is_empty() || result.is_err() {
            break;
        }
        // The long tail in larger steps, each of which is a look at all that came before.
        let length = (usize::from(part) + 1) * if rest.len() > 16 << 10 { 32 } else { 1 };
        let (part, further) = rest.split_at(length.min(rest.len()));
        result = inspector.feed(part);
        rest = further;
    }
    assert_eq!(result.and_then(|()| inspector.finish()), verdict);
});
