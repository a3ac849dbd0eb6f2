//! All scripts of the queue, for those who look at them from outside: tests, and programs in other languages. No operation knows it.

use crate::scripts::{Declared, Kind, Names, PartNames};

/// Every script: its file without the extension, and the text that Redis runs. For tests, and for `examples/scripts.rs`.
pub fn script_sources() -> Vec<(&'static str, String)> {
    ALL.iter().map(|script| (script.file.trim_end_matches(".lua"), script.source())).collect()
}

/// What a script is called with, by the names of its declaration and in their order.
#[derive(Debug)]
pub struct ScriptNames {
    /// Its file without the extension.
    pub script: &'static str,
    /// Redis refuses it when its memory is full.
    pub is_refused_at_maxmemory: bool,
    /// It changes nothing, and Redis sees to that.
    pub only_reads: bool,
    /// The keys that every call has.
    pub keys: Vec<&'static str>,
    /// The index of the first key behind them, where there may be more.
    pub keys_then: Option<&'static str>,
    /// The arguments that every call has.
    pub args: Vec<&'static str>,
    /// The index of the first argument behind them, where there may be more.
    pub args_then: Option<&'static str>,
    /// What may stand there.
    pub parts: &'static [PartNames],
}

/// The names of every script, for the test that compares docs/protocol.md with them.
pub fn script_names() -> Vec<ScriptNames> {
    let names = |listed: &Names| listed.fixed.iter().map(|(name, _)| *name).collect();
    let of_script = |script: &&Declared| ScriptNames {
        script: script.file.trim_end_matches(".lua"),
        is_refused_at_maxmemory: script.kind == Kind::Adds,
        only_reads: script.kind == Kind::Reads,
        keys: names(&script.keys),
        keys_then: script.keys.then,
        args: names(&script.args),
        args_then: script.args.then,
        parts: script.parts,
    };
    ALL.iter().map(of_script).collect()
}

/// Every script; `check` fails when a file of Lua belongs to none.
pub(crate) const ALL: &[&Declared] = &[
    crate::admit::AdmitScript::DECLARED,
    crate::batches::OpenScript::DECLARED,
    crate::batches::SealScript::DECLARED,
    crate::batches::TouchScript::DECLARED,
    crate::budget::NoteScript::DECLARED,
    crate::claim::ClaimScript::DECLARED,
    crate::claim::ReconcileScript::DECLARED,
    crate::claim::RunAloneScript::DECLARED,
    crate::dead::DeadScript::DECLARED,
    crate::dedup::ClearScript::DECLARED,
    crate::dedup::ForgetScript::DECLARED,
    crate::dedup::SplitScript::DECLARED,
    crate::enqueue::EnqueueScript::DECLARED,
    crate::pause::PauseScript::DECLARED,
    crate::purge::PurgeScript::DECLARED,
    crate::readers::AddReaderScript::DECLARED,
    crate::retention::SetRetentionScript::DECLARED,
    crate::search::FindScript::DECLARED,
    crate::settle::SettleScript::DECLARED,
    crate::status::StatusScript::DECLARED,
    crate::tidy::BatchForgetScript::DECLARED,
    crate::tidy::TidyScript::DECLARED,
    crate::workers::HeartbeatScript::DECLARED,
    crate::workers::RecoverScript::DECLARED,
    crate::workers::RegisterScript::DECLARED,
    crate::workers::UnregisterScript::DECLARED,
];
