//! Writes each script into a folder as `NAME.lua`, byte for byte as imgq sends it to Redis: for workers in other languages.
//!
//! `cargo run -p queue --example scripts -- DIR`. docs/protocol.md says what each is called with.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs, io};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("usage: cargo run -p queue --example scripts -- DIR");
        return ExitCode::from(2);
    };
    match write_all(folder) {
        Ok(count) => {
            println!("{count} scripts are in {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write the scripts to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &PathBuf) -> io::Result<usize> {
    fs::create_dir_all(folder)?;
    let scripts = queue::script_sources();
    for (name, text) in &scripts {
        fs::write(folder.join(format!("{name}.lua")), text)?;
    }
    Ok(scripts.len())
}
