//! Keys of arbitrary links: safe on every file system, and distinct for distinct links. Two links are two lines.

#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::layout_properties;

fuzz_target!(|lines: &str| {
    let (one, other) = lines.split_once('\n').unwrap_or((lines, ""));
    layout_properties::check_one(one);
    layout_properties::check_two(one, other);
    // Alike, and mostly another link.
    layout_properties::check_two(one, &one.to_ascii_lowercase());
});
