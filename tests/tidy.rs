//! Holds the source to the rules of `ARCHITECTURE.md`: layers, fences around packages and unsafe
//! code, sizes, and words that mean unfinished work.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The layers of `src/lib.rs`, outermost first. Those of one row do not see each other.
const LAYERS: [&[&str]; 6] =
    [&["server"], &["connection", "maintain"], &["protocol"], &["command"], &["store"], &["item"]];
/// What every layer may import, and what imports no layer.
const LEAVES: [&str; 7] = ["auth", "config", "clock", "stats", "privileges", "tls", "watch"];
/// A package, and the paths whose files may name it.
const FENCES: [(&str, &[&str]); 5] = [
    ("rustls", &["src/tls", "tests", "benches"]),
    ("mio", &["src/server", "src/connection"]),
    ("memmap2", &["slab/src"]),
    ("clap", &["src/config"]),
    ("slab", &["src/item", "src/store", "slab"]),
];
/// Packages of which one file alone may speak.
const ONE_FILE_PACKAGES: [&str; 1] = ["memmap2"];
/// Where unsafe code, or the word, may stand.
const UNSAFE_PATHS: [&str; 3] = ["slab", "src/item", "tests/tidy.rs"];
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!"),
    concat!("unimplemented", "!"),
    concat!("dbg", "!"),
    concat!("XX", "X"),
];
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;

/// A source file, with its path below the repository's root.
struct Source {
    path: String,
    text: String,
}

#[test]
fn the_source_is_tidy() {
    let sources = read_sources();
    assert!(sources.len() > 10, "the source was not found");
    let checks: [fn(&Source, &mut Vec<String>); 7] = [
        opens_with_its_purpose,
        imports_rightwards,
        keeps_to_fences,
        keeps_unsafe_in,
        has_short_functions,
        has_bounded_size,
        is_finished,
    ];
    let mut faults = Vec::new();
    for source in &sources {
        checks.iter().for_each(|check| check(source, &mut faults));
    }
    one_file_packages(&sources, &mut faults);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_layers_are_those_of_the_crate() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let mut drawn = String::new();
    for row in LAYERS {
        let _ = match row {
            [one] => write!(drawn, "{one} > "),
            several => write!(drawn, "{{{}}} > ", several.join(", ")),
        };
    }
    assert!(lib.contains(&format!("`{drawn}slab`")), "src/lib.rs does not draw {drawn}slab");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in modules {
        let known = LEAVES.contains(&module) || LAYERS.concat().contains(&module);
        assert!(known, "{module} has no place in the layers");
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read_sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for dir in ["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets", "slab"] {
        read_dir(&root(), Path::new(dir), &mut sources);
    }
    sources
}

fn read_dir(root: &Path, dir: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(root.join(dir)) else { return };
    for entry in entries {
        let name = entry.expect("an entry").file_name();
        let path = dir.join(&name);
        if root.join(&path).is_dir() {
            if name != "target" {
                read_dir(root, &path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(root.join(&path)).expect("a source file");
            sources.push(Source { path: path.display().to_string(), text });
        }
    }
}

impl Source {
    /// Its lines up to an inline `mod tests`, with their numbers.
    fn production_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_test = |pair: &[&str]| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        };
        let end = lines.windows(2).position(is_test).unwrap_or(lines.len());
        lines.into_iter().take(end).enumerate().map(|(at, line)| (at + 1, line))
    }

    /// Those lines without their comments.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.production_lines().map(|(at, line)| (at, line.split("//").next().unwrap_or("")))
    }

    fn is_below(&self, paths: &[&str]) -> bool {
        let below = |dir: &&str| Path::new(&self.path).starts_with(dir);
        paths.iter().any(below) || paths.iter().any(|dir| self.path == format!("{dir}.rs"))
    }

    /// The crate's module that the file belongs to.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let module = inside.split('/').next()?;
        Some(module.strip_suffix(".rs").unwrap_or(module))
    }
}

fn opens_with_its_purpose(source: &Source, faults: &mut Vec<String>) {
    if !source.text.starts_with("//! ") {
        faults.push(format!("{}: does not open with //! and its purpose", source.path));
    }
}

/// Modules import only from layers to their right and from leaves; leaves only from leaves.
fn imports_rightwards(source: &Source, faults: &mut Vec<String>) {
    let Some(from) = source.module().filter(|module| !matches!(*module, "lib" | "main")) else {
        return;
    };
    for (line, to) in imported_modules(source) {
        if to != from && !may_import(from, &to) {
            faults.push(format!("{}:{line}: {from} may not import {to}", source.path));
        }
    }
}

fn may_import(from: &str, to: &str) -> bool {
    let rank = |module| LAYERS.iter().position(|row| row.contains(&module));
    match (rank(from), rank(to)) {
        (_, None) => LEAVES.contains(&to),
        (Some(from), Some(to)) => from < to,
        (None, Some(_)) => false,
    }
}

/// The names behind `crate::`, groups taken apart.
fn imported_modules(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: Vec<(usize, &str)> = source.code_lines().collect();
    let text: String = code.iter().flat_map(|(_, line)| [*line, "\n"]).collect();
    let mut at = 0;
    while let Some(next) = text[at..].find("crate::") {
        let start = at + next;
        at = start + "crate::".len();
        let line = text[..start].matches('\n').count() + 1;
        let inside = match text[at..].strip_prefix('{') {
            Some(group) => top_level_names(group),
            None => vec![&text[at..]],
        };
        let names = inside.into_iter().map(leading_name).filter(|name| !name.is_empty());
        found.extend(names.map(|name| (line, name.to_owned())));
    }
    found
}

/// The members of a `{...}` group whose inside starts at `group`.
fn top_level_names(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut start = 0;
    let mut names = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn leading_name(text: &str) -> &str {
    &text[..text.find(|c| !is_name(c)).unwrap_or(text.len())]
}

/// True if `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_name);
        let after = line[at + word.len()..].chars().next().is_some_and(is_name);
        !before && !after
    })
}

/// True if `line` uses the package: a path that starts with its name.
fn names_package(line: &str, package: &str) -> bool {
    let path = format!("{package}::");
    let starts =
        |(at, _): (usize, &str)| !line[..at].ends_with(is_name) && !line[..at].ends_with("::");
    line.match_indices(&path).any(starts)
        || line.trim_start().starts_with(&format!("use {package}")) && has_word(line, package)
}

fn keeps_to_fences(source: &Source, faults: &mut Vec<String>) {
    if !source.is_below(&["src", "slab/src"]) {
        return;
    }
    for (package, paths) in FENCES {
        if source.is_below(paths) {
            continue;
        }
        for (at, line) in source.code_lines().filter(|(_, line)| names_package(line, package)) {
            let path = &source.path;
            faults.push(format!("{path}:{at}: {package} belongs in {paths:?}: {}", line.trim()));
        }
    }
}

fn one_file_packages(sources: &[Source], faults: &mut Vec<String>) {
    for package in ONE_FILE_PACKAGES {
        let names = |source: &&Source| source.code_lines().any(|(_, l)| names_package(l, package));
        let files: Vec<&str> = sources.iter().filter(names).map(|s| s.path.as_str()).collect();
        if files.len() > 1 {
            faults.push(format!("{package} belongs in one file, not in {files:?}"));
        }
    }
}

fn keeps_unsafe_in(source: &Source, faults: &mut Vec<String>) {
    if source.is_below(&UNSAFE_PATHS) {
        return;
    }
    for (at, _) in source.code_lines().filter(|(_, line)| has_word(line, "unsafe")) {
        faults.push(format!("{}:{at}: unsafe outside of {UNSAFE_PATHS:?}", source.path));
    }
}

fn has_short_functions(source: &Source, faults: &mut Vec<String>) {
    for (at, len) in function_lengths(source) {
        if len > FUNCTION_LINES_MAX {
            faults.push(format!("{}:{at}: a function of {len} lines", source.path));
        }
    }
}

/// Where each function with a body starts, and how many lines it has. Leans on rustfmt: a function
/// ends at the first brace that stands as far in as it starts.
fn function_lengths(source: &Source) -> Vec<(usize, usize)> {
    let lines: Vec<(usize, &str)> = source.code_lines().collect();
    let mut lengths = Vec::new();
    for (start, (at, line)) in lines.iter().enumerate() {
        if !starts_function(line.trim_start()) {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let has_body = |l: &str| l.trim_end().ends_with('{');
        let header_end = lines[start..]
            .iter()
            .position(|(_, l)| has_body(l) || l.trim_end().ends_with([';', '}']));
        if header_end.is_some_and(|offset| has_body(lines[start + offset].1)) {
            let len = lines[start..].iter().position(|(_, l)| l.trim_end() == end);
            lengths.extend(len.map(|len| (*at, len + 1)));
        }
    }
    lengths
}

fn starts_function(line: &str) -> bool {
    let mut words = line.split_whitespace().take_while(|word| {
        word.starts_with("pub") || matches!(*word, "const" | "unsafe" | "async" | "extern" | "fn")
    });
    words.any(|word| word == "fn")
}

fn has_bounded_size(source: &Source, faults: &mut Vec<String>) {
    let path = &source.path;
    let lines = source.production_lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{path}: {lines} lines without its tests"));
    }
    for (at, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            faults.push(format!("{path}:{}: {columns} columns", at + 1));
        }
    }
}

fn is_finished(source: &Source, faults: &mut Vec<String>) {
    for (at, line) in source.text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            faults.push(format!("{}:{}: {word}", source.path, at + 1));
        }
    }
}

/// The checks find what they are for.
#[test]
fn faults_are_found() {
    let long = format!("    pub fn long() {{\n{}    }}\n", "        call();\n".repeat(70));
    let text = format!(
        "use crate::{{server::Worker, store::{{Key, Store}}}};\nuse mio::Poll;\n\
         fn f() {{ unsafe {{}} }}\nuse crate::clock::Clock;\n\
         // {}\n{long}{}\n#[cfg(test)]\nmod tests {{\nuse crate::server::Worker;\n}}\n",
        UNFINISHED[0],
        "x".repeat(101),
    );
    let source = Source { path: "src/command/made_up.rs".into(), text };
    let count = |check: fn(&Source, &mut Vec<String>)| {
        let mut faults = Vec::new();
        check(&source, &mut faults);
        faults.len()
    };
    assert_eq!(count(opens_with_its_purpose), 1);
    assert_eq!(count(imports_rightwards), 1);
    assert_eq!(count(keeps_to_fences), 1);
    assert_eq!(count(keeps_unsafe_in), 1);
    assert_eq!(count(has_short_functions), 1);
    assert_eq!(count(has_bounded_size), 1);
    assert_eq!(count(is_finished), 1);
    assert!(!may_import("connection", "maintain") && !may_import("clock", "store"));
    assert!(may_import("server", "item") && may_import("item", "stats"));
}
