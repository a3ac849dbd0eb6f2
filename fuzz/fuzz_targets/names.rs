//! Keys of arbitrary links: safe on every file system, and distinct for distinct links. Two links are two lines.

#![no_main]

#[allow(dead_code, reason = "all of it is the worker's, some of it is tried here")]
#[path = "../../worker/src/storage/layout.rs"]
mod layout;
#[path = "../../worker/src/storage/layout_properties.rs"]
mod layout_properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: &str| {
    let (one, other) = lines.split_once('\n').unwrap_or((lines, ""));
    layout_properties::check_one(one);
    layout_properties::check_two(one, other);
    // Alike, and mostly another link.
    layout_properties::check_two(one, &one.to_ascii_lowercase());
});
