//! Which modules of a crate name which others, read from its sources; and the circles among them.
//!
//! A small reader of Rust: it knows what is text and what is code, `#[cfg(test)]`, and paths with their trees. Names that a macro
//! puts together it does not see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The modules of a crate by their paths (`pages::parts`, empty for the crate itself), and which others each names. `sources` are the
/// files of `folder`, each with its path and its code.
pub(crate) fn named_modules(folder: &str, sources: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let path_of = |name: &str| {
        let path = name.strip_prefix(&format!("{folder}/")).unwrap().strip_suffix(".rs").unwrap();
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if matches!(path, "lib" | "main") { String::new() } else { path.replace('/', "::") }
    };
    let codes = sources.iter().map(|(name, code)| (path_of(name), without_text(code)));
    let codes: BTreeMap<String, String> = codes.collect();
    let only_in_tests: BTreeSet<String> = codes
        .iter()
        .flat_map(|(module, code)| {
            let declared = items_of_tests(code).into_iter().filter_map(|item| {
                let declaration = item.strip_suffix(';')?;
                Some(below(module, declaration.split_once("mod ")?.1.trim()))
            });
            declared.collect::<Vec<_>>()
        })
        .collect();
    let modules: BTreeSet<&str> = codes.keys().map(String::as_str).collect();
    let named = codes.iter().filter(|(module, _)| !only_in_tests.contains(*module)).map(|(module, code)| {
        let code = items_of_tests(code).into_iter().fold(code.clone(), |code, item| code.replacen(&item, "", 1));
        let named = paths_in(&code, module, &modules).into_iter().map(|path| resolved(&path, module, &modules));
        let is_ancestor =
            |other: &str| other.is_empty() || other == module || module.starts_with(&format!("{other}::"));
        (module.clone(), named.filter(|other| !is_ancestor(other)).collect())
    });
    named.collect()
}

fn below(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// The code with blanks in the place of comments and of what stands in quotes, where braces and paths mean nothing.
fn without_text(code: &str) -> String {
    let mut shown = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|quoted| quoted.bytes().take_while(|byte| *byte == b'#').count());
        let is_in_word = shown.trim_end_matches('b').ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let raw = raw.filter(|hashes| rest[1 + hashes..].starts_with('"') && !is_in_word);
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(hashes) = raw {
            let end = format!("\"{}", "#".repeat(hashes));
            let begins = 2 + hashes;
            begins + rest[begins..].find(&end).unwrap() + end.len()
        } else if first == '"' {
            let mut escaped = false;
            let ends = rest[1..].find(|c| {
                let is_end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            });
            ends.unwrap() + 2
        } else if rest.starts_with("'\\") {
            // The quote may be what is escaped.
            3 + rest[3..].find('\'').unwrap() + 1
        } else if first == '\'' && rest.chars().nth(2) == Some('\'') {
            2 + rest.chars().nth(1).unwrap().len_utf8()
        } else {
            shown.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        shown.push(' ');
        rest = &rest[length..];
    }
    shown
}

/// What `#[cfg(test)]` stands before: an item to its semicolon or to the brace that closes it, a field to its comma.
fn items_of_tests(code: &str) -> Vec<String> {
    let starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    let item = |at: usize| {
        let mut depth = 0;
        let length = code[at..].find(|c| {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            depth < 0 || depth == 0 && matches!(c, ';' | '}' | ',')
        });
        code[at..=at + length.unwrap_or_else(|| panic!("no end of {}", &code[at..]))].to_owned()
    };
    starts.map(item).collect()
}

/// The paths that name something of this crate, each as its words.
fn paths_in(code: &str, module: &str, modules: &BTreeSet<&str>) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut paths = Vec::new();
    let mut before = ' ';
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        let is_first = !is_word(before) && before != ':' && before != '$';
        let is_ours = matches!(word, "crate" | "super" | "self") || modules.contains(&*below(module, word));
        if is_first && !word.is_empty() && is_ours && rest[word.len()..].starts_with("::") {
            read_paths(rest, &mut Vec::new(), &mut paths);
        }
        let length = word.len().max(first.len_utf8());
        before = rest[..length].chars().next_back().unwrap();
        rest = &rest[length..];
    }
    paths
}

/// Reads a path, or all of a tree of them as `use` has it (`a::{b, c::{d, e}}`), and returns what stands behind.
fn read_paths<'a>(text: &'a str, begun: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let depth = begun.len();
    let mut rest = text.trim_start();
    loop {
        if let Some(tree) = rest.strip_prefix('{') {
            rest = tree.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                rest = read_paths(rest, begun, paths);
                rest = rest.trim_start_matches(|c| c != ',' && c != '}').trim_start_matches(',').trim_start();
            }
            rest = rest.strip_prefix('}').unwrap_or(rest);
            break;
        }
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        begun.push(word.to_owned());
        rest = &rest[word.len()..];
        match rest.strip_prefix("::") {
            Some(further) if further.starts_with(|c| is_word(c) || c == '{') => rest = further,
            _ => {
                paths.push(begun.clone());
                break;
            }
        }
    }
    begun.truncate(depth);
    rest
}

/// The module that a path in `module` leads to, or that what it leads to is in.
fn resolved(path: &[String], module: &str, modules: &BTreeSet<&str>) -> String {
    let parent = |module: &str| module.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned());
    let mut at = module.to_owned();
    for word in path {
        at = match word.as_str() {
            "crate" => String::new(),
            "super" => parent(&at),
            "self" => at,
            name if modules.contains(&*below(&at, name)) => below(&at, name),
            _ => return at,
        };
    }
    at
}

/// The shortest circle through each module that is in one.
pub(crate) fn circles(named: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut circles = BTreeSet::new();
    for start in named.keys() {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = VecDeque::from([start.as_str()]);
        while let Some(module) = next.pop_front() {
            for other in named.get(module).into_iter().flatten() {
                if came_from.contains_key(other.as_str()) {
                    continue;
                }
                came_from.insert(other, module);
                next.push_back(other);
            }
        }
        let Some(mut module) = came_from.get(start.as_str()).copied() else { continue };
        let mut circle = vec![start.as_str()];
        while module != start {
            circle.push(module);
            module = came_from[module];
        }
        circle.reverse();
        // Told once, whichever of its modules it was found from.
        let first = circle.iter().enumerate().min_by_key(|(_, module)| **module).map_or(0, |(first, _)| first);
        circle.rotate_left(first);
        circle.push(circle[0]);
        circles.insert(circle.join(" -> "));
    }
    circles
}

#[test]
fn a_circle_is_found_and_its_path_named() {
    let code = "use super::b::{self, c};\n/// crate::x\nfn f() { let _ = \"crate::y::z\"; crate::d::e::f(); }\n\
                #[cfg(test)]\nmod tests { use super::super::g; }\n#[cfg(test)]\nmod h;";
    let code = without_text(code);
    let tests = items_of_tests(&code);
    assert_eq!(tests.len(), 2);
    let code = tests.iter().fold(code.clone(), |code, item| code.replacen(item, "", 1));
    let modules = BTreeSet::from(["", "a", "b", "b::c", "d", "g", "x", "y"]);
    let named: Vec<String> = paths_in(&code, "a", &modules).iter().map(|path| resolved(path, "a", &modules)).collect();
    assert_eq!(named, ["b", "b::c", "d"]);
    let names = |others: &[&str]| others.iter().map(|other| (*other).to_owned()).collect::<BTreeSet<_>>();
    let graph = [("a", names(&["b"])), ("b", names(&["c", "d"])), ("c", names(&["a"])), ("d", names(&[]))];
    let graph = graph.map(|(module, others)| (module.to_owned(), others)).into();
    assert_eq!(circles(&graph), BTreeSet::from(["a -> b -> c -> a".to_owned()]));
}
