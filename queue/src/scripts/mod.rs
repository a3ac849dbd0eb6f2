//! What binds a script to the Rust that runs it: keys and arguments are listed once, by name, in [`script!`] and [`part!`].
//!
//! A declaration makes two things of the list. In Rust a struct with a field for each, so that none can be missing or swapped;
//! in Lua locals of the same names in front of the script. Locals and no tables, as a claim and a settle cost Redis 10 µs a job
//! all told. `check` goes over all scripts and fails where the two sides differ.

#[cfg(test)]
mod check;
mod reply;

#[cfg(test)]
pub(crate) use reply::probe;
pub(crate) use reply::{NumberOrText, Reply, text, unexpected};

use std::borrow::Cow;
use std::collections::HashMap;

/// Lua that several scripts share, or a part of a long one: a file of its own in front of the script's body.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) name: &'static str,
    pub(crate) lua: Lua,
}

/// Where the text of a piece comes from.
#[derive(Debug)]
pub(crate) enum Lua {
    File(&'static str),
    /// Made out of a list that Rust has.
    Made(fn() -> String),
}

impl Piece {
    pub(crate) fn text(&self) -> Cow<'static, str> {
        match self.lua {
            Lua::File(text) => text.into(),
            Lua::Made(make) => make().into(),
        }
    }
}

/// The piece in the file of that name beside the one that says so.
macro_rules! piece {
    ($file:literal) => {
        crate::scripts::Piece { name: $file, lua: crate::scripts::Lua::File(include_str!($file)) }
    };
}
pub(crate) use piece;

/// Redis' clock.
pub(crate) const TIME: Piece = piece!("time.lua");
/// Asking what a key holds, before anything is changed.
pub(crate) const TYPES: Piece = piece!("types.lua");
/// Whether a newer imgq wrote the queue.
pub(crate) const KNOWN_SCHEMA: Piece = piece!("schema.lua");
/// Counters of hashes.
pub(crate) const COUNTERS: Piece = piece!("counters.lua");
/// Long lists as arguments of a command.
pub(crate) const IN_PARTS: Piece = piece!("in_parts.lua");
/// What a payload tells of its job without being decoded.
pub(crate) const JOBS: Piece = piece!("jobs.lua");
/// Putting a job into `delayed`.
pub(crate) const WAITING: Piece = piece!("waiting.lua");

/// A script as it was declared.
#[derive(Debug)]
pub(crate) struct Declared {
    /// The file of its body.
    pub(crate) file: &'static str,
    pub(crate) body: &'static str,
    pub(crate) kind: Kind,
    pub(crate) pieces: &'static [Piece],
    pub(crate) keys: Names,
    pub(crate) args: Names,
    pub(crate) parts: &'static [PartNames],
}

/// What a script does to the memory of Redis, which decides whether it runs when that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Frees it, or moves what is there: it always runs, or a queue that is full would stay so for ever.
    Moves,
    /// Adds to the queue: it is refused.
    Adds,
    /// Changes nothing, which Redis sees to: it always runs, and on a replica as well.
    Reads,
}

impl Kind {
    fn first_line(self) -> &'static str {
        match self {
            Kind::Moves => "#!lua flags=allow-oom\n",
            Kind::Adds => "#!lua\n",
            Kind::Reads => "#!lua flags=no-writes\n",
        }
    }
}

/// The kind by the words of a declaration.
macro_rules! script_kind {
    () => {
        crate::scripts::Kind::Moves
    };
    (refused at maxmemory) => {
        crate::scripts::Kind::Adds
    };
    (only reads) => {
        crate::scripts::Kind::Reads
    };
}
pub(crate) use script_kind;

/// What a script has always, and the name of the index where what varies in number begins.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) fixed: &'static [(&'static str, InLua)],
    pub(crate) then: Option<&'static str>,
}

/// What the local of an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InLua {
    Text,
    /// Or nil, where Rust has `None`.
    Number,
    Boolean,
}

/// What a call may have any number of times: keys, arguments, or both.
#[derive(Debug)]
pub struct PartNames {
    /// What its constants begin with in Lua.
    pub prefix: &'static str,
    /// Its first argument, where parts of several kinds follow each other.
    pub tag: Option<&'static str>,
    /// Its keys, in their order.
    pub keys: &'static [&'static str],
    /// Its arguments behind the tag, in their order.
    pub args: &'static [&'static str],
}

impl PartNames {
    /// The constants by which Lua finds what is in a part: offsets from its first key or argument, and how many of each it has.
    /// `PREFIX_ARGS` counts the tag.
    fn constants(&self) -> Vec<(String, usize)> {
        let named = |name: &str| format!("{}_{}", self.prefix, name.to_uppercase());
        let mut constants: Vec<_> = self.keys.iter().enumerate().map(|(at, name)| (named(name), at)).collect();
        if !self.keys.is_empty() {
            constants.push((named("keys"), self.keys.len()));
        }
        let tag = usize::from(self.tag.is_some());
        constants.extend(self.args.iter().enumerate().map(|(at, name)| (named(name), at + tag)));
        if self.args.len() + tag > 0 {
            constants.push((named("args"), self.args.len() + tag));
        }
        constants
    }
}

impl Declared {
    /// The names that the macro puts in front, as Lua.
    fn header(&self) -> String {
        let (mut names, mut values) = (vec![], vec![]);
        for (table, listed) in [("KEYS", &self.keys), ("ARGV", &self.args)] {
            for (at, (name, in_lua)) in listed.fixed.iter().enumerate() {
                let index = at + 1;
                names.push((*name).to_owned());
                values.push(match in_lua {
                    InLua::Text => format!("{table}[{index}]"),
                    InLua::Number => format!("tonumber({table}[{index}])"),
                    InLua::Boolean => format!("{table}[{index}] == '1'"),
                });
            }
            if let Some(then) = listed.then {
                // Globals cost a look-up each time, and these scripts read them job by job.
                names.extend([table.to_owned(), then.to_owned()]);
                values.extend([table.to_owned(), (listed.fixed.len() + 1).to_string()]);
            }
        }
        format!("local {} = {}\n", names.join(", "), values.join(", "))
    }

    /// All of it, as it is sent to Redis.
    pub(crate) fn source(&self) -> String {
        let mut source = self.kind.first_line().to_owned();
        source.push_str(&self.header());
        for piece in self.pieces {
            // For whoever looks at a script in Redis.
            source.push_str(&format!("-- {}\n", piece.name));
            source.push_str(&piece.text());
        }
        source.push_str(self.body);
        self.with_offsets(&source)
    }

    /// Puts offsets in the place of their names. As locals they would cost every call: Lua 5.1 searches each local that a function
    /// uses among all others that functions use, whenever the function is made, and a script's are made each time it runs.
    fn with_offsets(&self, lua: &str) -> String {
        let offsets: HashMap<String, usize> = self.parts.iter().flat_map(PartNames::constants).collect();
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut text = String::with_capacity(lua.len());
        let mut rest = lua;
        while !rest.is_empty() {
            let (word, behind) = rest.split_at(rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()));
            match offsets.get(word) {
                Some(offset) => text.push_str(&offset.to_string()),
                None => text.push_str(word),
            }
            let (between, behind) = behind.split_at(behind.find(is_of_name).unwrap_or(behind.len()));
            text.push_str(between);
            rest = behind;
        }
        text
    }
}

/// Declares a script, whose body lies in a file beside the one that says so, and makes a struct that it is called by.
///
/// ```text
/// script! {
///     Forget from "dedup_forget.lua";          with `refused at maxmemory` behind it where it adds to the queue,
///                                              or `only reads`
///     with [TYPES, GROWTH];                    pieces, in their order
///     keys [growth_key];                       in Rust a field `growth_key: String`, in Lua a local
///     args [level: u32, split: u64], then links_from;     and `links_from`, the index of the first argument that is not listed;
///                                              what is a number in Rust is one in Lua, and `None` of a number nil
///     parts [ForgottenLink]                    what may be added to a call, see `part!`
/// }
/// ```
macro_rules! script {
    (
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? from $file:literal $(, $($kind:ident)+)?;
        with [$($piece:expr),* $(,)?];
        keys [$($key:ident),* $(,)?] $(, then $keys_from:ident)?;
        args [$($arg:ident: $type:ty),* $(,)?] $(, then $args_from:ident)?;
        $(parts [$($part:ident),* $(,)?])?
    ) => {
        $(#[$doc])*
        pub(crate) struct $name $(<$life>)? {
            $(pub(crate) $key: String,)*
            $(pub(crate) $arg: $type,)*
        }

        impl $(<$life>)? $name $(<$life>)? {
            pub(crate) const DECLARED: &'static crate::scripts::Declared = &crate::scripts::Declared {
                file: $file,
                body: include_str!($file),
                kind: crate::scripts::script_kind!($($($kind)+)?),
                pieces: &[$($piece),*],
                keys: crate::scripts::Names {
                    fixed: &[$((stringify!($key), crate::scripts::InLua::Text)),*],
                    then: { let _then: Option<&'static str> = None; $(let _then = Some(stringify!($keys_from));)? _then },
                },
                args: crate::scripts::Names {
                    fixed: &[$((stringify!($arg), <$type as crate::scripts::Argument>::IN_LUA)),*],
                    then: { let _then: Option<&'static str> = None; $(let _then = Some(stringify!($args_from));)? _then },
                },
                parts: &[$($($part::NAMES),*)?],
            };

            /// The call, to which parts may be added.
            pub(crate) fn call(self) -> crate::scripts::Call {
                static SCRIPT: std::sync::LazyLock<redis::Script> =
                    std::sync::LazyLock::new(|| redis::Script::new(&$name::DECLARED.source()));
                let mut call = crate::scripts::Call::of(&SCRIPT);
                $(call.key(self.$key);)*
                $(call.arg(self.$arg);)*
                call
            }
        }
    };
}
pub(crate) use script;

/// Declares what may be added to a call any number of times: keys, arguments, or both.
///
/// `PurgedJob as JOB { keys [batch_key] args [payload: &'a [u8]] }` makes a struct, and for Lua the constants `JOB_BATCH_KEY`,
/// `JOB_PAYLOAD` (offsets from the part's first key and first argument), `JOB_KEYS` and `JOB_ARGS` (how many it has). With
/// `tag "retry"` that word is its first argument. What is read by an offset is text.
macro_rules! part {
    (
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? as $prefix:ident $(, tag $tag:literal)? {
            $(keys [$($key:ident),* $(,)?])?
            $(args [$($arg:ident: $type:ty),* $(,)?])?
        }
    ) => {
        $(#[$doc])*
        pub(crate) struct $name $(<$life>)? {
            $($(pub(crate) $key: String,)*)?
            $($(pub(crate) $arg: $type,)*)?
        }

        impl $(<$life>)? $name $(<$life>)? {
            pub(crate) const NAMES: crate::scripts::PartNames = crate::scripts::PartNames {
                prefix: stringify!($prefix),
                tag: { let _tag: Option<&'static str> = None; $(let _tag = Some($tag);)? _tag },
                keys: &[$($(stringify!($key)),*)?],
                args: &[$($(stringify!($arg)),*)?],
            };

            pub(crate) fn add_to(self, call: &mut crate::scripts::Call) {
                $(call.arg($tag);)?
                $($(call.key(self.$key);)*)?
                $($(call.arg(self.$arg);)*)?
            }
        }
    };
}
pub(crate) use part;

/// One call of a script, being put together.
pub(crate) struct Call {
    invocation: redis::ScriptInvocation<'static>,
    keys: usize,
    further: HashMap<String, usize>,
}

impl Call {
    pub(crate) fn of(script: &'static redis::Script) -> Call {
        Call { invocation: script.prepare_invoke(), keys: 0, further: HashMap::new() }
    }

    pub(crate) fn key(&mut self, key: String) {
        self.invocation.key(key);
        self.keys += 1;
    }

    /// The index in KEYS of a key that is sent once, however many parts name it.
    pub(crate) fn index_of(&mut self, key: String) -> usize {
        if let Some(index) = self.further.get(&key) {
            return *index;
        }
        self.key(key.clone());
        self.further.insert(key, self.keys);
        self.keys
    }

    /// Exactly one argument, whatever it is.
    pub(crate) fn arg(&mut self, argument: impl Argument) {
        argument.write(&mut self.invocation);
    }

    pub(crate) fn invocation(&self) -> &redis::ScriptInvocation<'static> {
        &self.invocation
    }
}

/// What is one argument. The client's own trait lets `None` be none at all, and a list be several: then all behind it would be
/// read as something else.
pub(crate) trait Argument {
    const IN_LUA: InLua;

    fn write(self, invocation: &mut redis::ScriptInvocation<'_>);
}

macro_rules! arguments {
    ($in_lua:ident: $($type:ty),*) => {
        $(impl Argument for $type {
            const IN_LUA: InLua = InLua::$in_lua;

            fn write(self, invocation: &mut redis::ScriptInvocation<'_>) {
                invocation.arg(self);
            }
        })*
    };
}
arguments!(Text: &str, &[u8], String);
arguments!(Number: u32, u64, usize, f64);

impl Argument for bool {
    const IN_LUA: InLua = InLua::Boolean;

    fn write(self, invocation: &mut redis::ScriptInvocation<'_>) {
        invocation.arg(u8::from(self));
    }
}

/// Nothing is the empty string, of which Lua's `tonumber` makes nil.
impl<T: Argument> Argument for Option<T> {
    const IN_LUA: InLua = T::IN_LUA;

    fn write(self, invocation: &mut redis::ScriptInvocation<'_>) {
        match self {
            Some(argument) => argument.write(invocation),
            None => "".write(invocation),
        }
    }
}
