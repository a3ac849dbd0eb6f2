//! The one reader of replies: each part of a reply has a name, and one that is missing, of another type or an unknown word is an
//! error. A default in its place would be taken for what Redis said.

use common::error::QueueError;
use redis::Value;
use std::collections::HashMap;
use std::vec::IntoIter;

/// A part that may be either.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NumberOrText {
    Number(u64),
    Text(String),
}

/// What a script answered, read part by part.
#[derive(Debug)]
pub(crate) struct Reply {
    doing: &'static str,
    parts: IntoIter<Value>,
}

impl Reply {
    /// # Errors
    /// [`QueueError::UnexpectedReply`] where it is no list.
    pub(crate) fn of(doing: &'static str, value: Value) -> Result<Reply, QueueError> {
        Reply::of_list(doing, value, "a list")
    }

    /// In the third version of Redis' protocol a hash is no flat list; it is read like one.
    fn of_list(doing: &'static str, value: Value, what: &str) -> Result<Reply, QueueError> {
        let parts = match value {
            Value::Array(parts) => parts,
            Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
            other => return Err(unexpected(doing, &other, what)),
        };
        Ok(Reply { doing, parts: parts.into_iter() })
    }

    /// How many parts are left.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// # Errors
    /// [`QueueError::UnexpectedReply`] where something is left that nobody asked for.
    pub(crate) fn end(mut self) -> Result<(), QueueError> {
        self.parts.next().map_or(Ok(()), |more| Err(unexpected(self.doing, &more, "the end of the reply")))
    }

    /// The next part, whatever it is.
    pub(crate) fn part(&mut self, what: &str) -> Result<Value, QueueError> {
        self.parts.next().ok_or_else(|| QueueError::UnexpectedReply {
            doing: self.doing,
            found: "nothing more".to_owned(),
            expected: what.to_owned(),
        })
    }

    fn read<T>(&mut self, what: &str, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, QueueError> {
        let part = self.part(what)?;
        read(&part).ok_or_else(|| unexpected(self.doing, &part, what))
    }

    /// A number of things, which is not negative.
    pub(crate) fn count<T: TryFrom<i64>>(&mut self, what: &str) -> Result<T, QueueError> {
        self.read(what, |part| if let Value::Int(number) = part { T::try_from(*number).ok() } else { None })
    }

    /// A number, or `None` where it is -1.
    pub(crate) fn count_unless_minus_one(&mut self, what: &str) -> Result<Option<u64>, QueueError> {
        self.read(what, |part| match part {
            Value::Int(-1) => Some(None),
            Value::Int(number) => u64::try_from(*number).ok().map(Some),
            _ => None,
        })
    }

    /// 1 or 0.
    pub(crate) fn flag(&mut self, what: &str) -> Result<bool, QueueError> {
        self.read(what, |part| match part {
            Value::Int(1) => Some(true),
            Value::Int(0) => Some(false),
            _ => None,
        })
    }

    /// One of the words that are known.
    pub(crate) fn word<T: Copy>(&mut self, what: &str, words: &[(&str, T)]) -> Result<T, QueueError> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let expected = format!("{what} ({})", known.join(", "));
        self.read(&expected, |part| {
            let Value::BulkString(bytes) = part else { return None };
            words.iter().find(|(word, _)| word.as_bytes() == bytes).map(|(_, meaning)| *meaning)
        })
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, what: &str) -> Result<Vec<u8>, QueueError> {
        match self.part(what)? {
            Value::BulkString(bytes) => Ok(bytes),
            other => Err(unexpected(self.doing, &other, what)),
        }
    }

    /// The same, or nothing.
    pub(crate) fn bytes_or_nil(&mut self, what: &str) -> Result<Option<Vec<u8>>, QueueError> {
        match self.part(what)? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes)),
            other => Err(unexpected(self.doing, &other, what)),
        }
    }

    /// Text. What strangers sent may be no UTF-8; such bytes are shown as such.
    pub(crate) fn text(&mut self, what: &str) -> Result<String, QueueError> {
        self.read(what, text)
    }

    /// A number that is not negative, or text.
    pub(crate) fn number_or_text(&mut self, what: &str) -> Result<NumberOrText, QueueError> {
        self.read(what, |part| match part {
            Value::Int(number) => u64::try_from(*number).ok().map(NumberOrText::Number),
            other => text(other).map(NumberOrText::Text),
        })
    }

    /// Text, or nothing.
    pub(crate) fn text_or_nil(&mut self, what: &str) -> Result<Option<String>, QueueError> {
        self.read(what, |part| if *part == Value::Nil { Some(None) } else { text(part).map(Some) })
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, what: &str) -> Result<Vec<String>, QueueError> {
        self.read(what, |part| if let Value::Array(parts) = part { parts.iter().map(text).collect() } else { None })
    }

    /// A list within the reply.
    pub(crate) fn list(&mut self, what: &str) -> Result<Reply, QueueError> {
        let part = self.part(what)?;
        Reply::of_list(self.doing, part, what)
    }

    /// The same, or 0 for an empty one, which costs Redis much less.
    pub(crate) fn list_or_0(&mut self, what: &str) -> Result<Reply, QueueError> {
        match self.part(what)? {
            Value::Int(0) => Ok(Reply { doing: self.doing, parts: Vec::new().into_iter() }),
            other => Reply::of_list(self.doing, other, what),
        }
    }

    /// The fields of a hash.
    pub(crate) fn fields(&mut self, what: &str) -> Result<HashMap<String, String>, QueueError> {
        let mut flat = self.list(what)?;
        let mut fields = HashMap::with_capacity(flat.len() / 2);
        while flat.len() > 0 {
            fields.insert(flat.text("a field's name")?, flat.text("a field's value")?);
        }
        Ok(fields)
    }

    /// What TIME says, as ms since 1970.
    pub(crate) fn time_ms(&mut self) -> Result<u64, QueueError> {
        let mut time = self.list("the time")?;
        let mut number = |what| -> Result<u64, QueueError> { time.read(what, |part| text(part)?.parse().ok()) };
        Ok(number("seconds")? * 1000 + number("microseconds")? / 1000)
    }
}

/// A part as text, where it is that.
pub(crate) fn text(part: &Value) -> Option<String> {
    match part {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

/// That a part is not what it should be.
pub(crate) fn unexpected(doing: &'static str, found: &Value, expected: &str) -> QueueError {
    const SHOWN_CHARS_MAX: usize = 60;
    let found = match found {
        Value::Nil => "nothing".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => {
            format!("{:?}", String::from_utf8_lossy(bytes).chars().take(SHOWN_CHARS_MAX).collect::<String>())
        }
        Value::Array(parts) => format!("a list of {}", parts.len()),
        other => format!("{other:?}").chars().take(SHOWN_CHARS_MAX).collect(),
    };
    QueueError::UnexpectedReply { doing, found, expected: expected.to_owned() }
}

/// For the tests of operations: a reply that is read well, and all that are a little else.
#[cfg(test)]
pub(crate) mod probe {
    use super::*;

    pub(crate) fn word(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    /// `read` takes `good`, and none that lacks a part, has one of another type, a first word that nobody knows, or more behind it.
    pub(crate) fn takes_only<T: std::fmt::Debug>(read: impl Fn(Reply) -> Result<T, QueueError>, good: &[Value]) -> T {
        let read_parts = |parts: Vec<Value>| read(Reply::of("test", Value::Array(parts)).expect("a list"));
        let refuses = |parts: Vec<Value>| {
            let told = read_parts(parts.clone());
            assert!(matches!(told, Err(QueueError::UnexpectedReply { .. })), "{parts:?} is read as {told:?}");
        };
        for at in 0..good.len() {
            refuses(good[..at].to_vec());
            for other in [Value::Nil, Value::Okay, Value::Int(-7)] {
                let mut parts = good.to_vec();
                parts[at] = other;
                refuses(parts);
            }
        }
        if let [Value::BulkString(_), rest @ ..] = good {
            refuses([&[word("resting")], rest].concat());
        }
        refuses([good, &[Value::Nil]].concat());
        read_parts(good.to_vec()).expect("the good one is read")
    }
}

#[cfg(test)]
mod tests {
    use super::probe::word as text_of;
    use super::*;

    fn reply(parts: &[Value]) -> Reply {
        Reply::of("test", Value::Array(parts.to_vec())).expect("a list")
    }

    /// A reader, a value that it reads, and values that it does not.
    type Case = (&'static str, fn(&mut Reply) -> Result<(), QueueError>, Value, Vec<Value>);

    #[test]
    fn each_reader_refuses_what_is_of_another_type_and_what_is_missing() {
        let list = Value::Array(vec![text_of("a"), text_of("b")]);
        let numbers = Value::Array(vec![Value::Int(1), Value::Int(2)]);
        let cases: [Case; 13] = [
            ("count", |r| r.count::<u64>("n").map(drop), Value::Int(7), vec![Value::Int(-1), text_of("7"), Value::Nil]),
            ("small count", |r| r.count::<u32>("n").map(drop), Value::Int(7), vec![Value::Int(1 << 40)]),
            (
                "count or -1",
                |r| r.count_unless_minus_one("n").map(drop),
                Value::Int(-1),
                vec![Value::Int(-2), Value::Nil, text_of("-1")],
            ),
            ("flag", |r| r.flag("f").map(drop), Value::Int(0), vec![Value::Int(2), Value::Nil, text_of("1")]),
            (
                "word",
                |r| r.word("w", &[("ok", ()), ("full", ())]).map(drop),
                text_of("full"),
                vec![text_of("okay"), text_of(""), Value::Int(1), Value::Nil],
            ),
            ("bytes", |r| r.bytes("b").map(drop), text_of("b"), vec![Value::Nil, Value::Int(1), list.clone()]),
            ("text", |r| r.text("t").map(drop), Value::BulkString(vec![0xff]), vec![Value::Nil, Value::Int(1)]),
            ("text or nil", |r| r.text_or_nil("t").map(drop), Value::Nil, vec![Value::Int(1), list.clone()]),
            ("texts", |r| r.texts("t").map(drop), list.clone(), vec![Value::Nil, numbers.clone(), text_of("a")]),
            (
                "fields",
                |r| r.fields("f").map(drop),
                list.clone(),
                vec![Value::Array(vec![text_of("a")]), numbers.clone(), Value::Nil],
            ),
            (
                "time",
                |r| r.time_ms().map(drop),
                Value::Array(vec![text_of("1"), text_of("2")]),
                vec![list.clone(), Value::Array(vec![text_of("1")]), Value::Nil],
            ),
            ("list or 0", |r| r.list_or_0("l").map(drop), Value::Int(0), vec![Value::Int(1), Value::Nil, text_of("a")]),
            (
                "number or text",
                |r| r.number_or_text("n").map(drop),
                Value::Int(0),
                vec![Value::Int(-1), Value::Nil, list.clone()],
            ),
        ];
        for (name, read, good, bad) in cases {
            assert!(read(&mut reply(&[good])).is_ok(), "{name}");
            for value in bad {
                let told = read(&mut reply(std::slice::from_ref(&value)));
                assert!(matches!(told, Err(QueueError::UnexpectedReply { .. })), "{name} reads {value:?}: {told:?}");
            }
            assert!(matches!(read(&mut reply(&[])), Err(QueueError::UnexpectedReply { .. })), "{name} reads nothing");
        }
        assert!(Reply::of("test", Value::Int(1)).is_err());
        assert!(reply(&[Value::Nil]).end().is_err(), "something is left");
    }

    #[test]
    fn an_unknown_word_is_told_with_those_that_are_known() {
        let told = reply(&[text_of("resting")])
            .word("the status of a claim", &[("ok", ()), ("full", ())])
            .expect_err("an unknown word");
        assert_eq!(
            told.to_string(),
            r#"Redis answered "resting" where the status of a claim (ok, full) was expected, when it was asked to test"#
        );
        assert!(told.hint().is_some_and(|hint| hint.contains("different versions")));
    }

    #[test]
    fn a_hash_is_read_in_both_versions_of_the_protocol() {
        let flat = Value::Array(vec![text_of("a"), text_of("1")]);
        let map = Value::Map(vec![(text_of("a"), text_of("1"))]);
        for value in [flat, map] {
            assert_eq!(reply(&[value]).fields("f").expect("fields")["a"], "1");
        }
    }
}
