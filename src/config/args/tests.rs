//! Whole command lines: what they resolve to, and what ends them.

use super::super::{Error, Layout, parse};
use super::*;

fn action(line: &str) -> Result<Action, Error> {
    let words = std::iter::once("rustcached").chain(line.split_whitespace());
    parse(words.map(OsString::from))
}

fn run(line: &str) -> Settings {
    match action(line) {
        Ok(Action::Run(settings)) => *settings,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    match action(line) {
        Err(error) => error.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

fn printed(line: &str) -> String {
    match action(line) {
        Ok(Action::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

fn listen(host: &str, port: u16) -> Listen {
    Listen { host: host.into(), port, ..Listen::default() }
}

#[test]
fn no_options_are_the_defaults() {
    assert_eq!(format!("{:?}", run("")), format!("{:?}", Settings::default()));
    assert_eq!(Settings::default().layout, Layout::Compact);
}

#[test]
fn every_option_is_honoured_under_both_names() {
    for (short, long, seen) in [
        ("-p 21100", "--port=21100", "tcp_port: 21100"),
        ("-l ::1", "--listen ::1", "host: \"::1\""),
        ("-s /x", "--unix-socket=/x", "unix_socket: Some(\"/x\")"),
        ("-a 770", "--unix-mask 0770", "unix_mask: 504"),
        ("-c 10", "--conn-limit=10", "max_connections: 10"),
        ("-b 8675", "--listen-backlog=8675", "backlog: 8675"),
        ("-B ascii", "--protocol=ascii", "protocol: Ascii"),
        ("-B binary", "--protocol=binary", "protocol: Binary"),
        ("-N 4", "--napi-ids=4", "napi_ids: 4"),
        ("-R 500", "--max-reqs-per-event=500", "requests_per_event: 500"),
        ("-m 100", "--memory-limit=100", "maxbytes: 104857600"),
        ("-M", "--disable-evictions", "evict: false"),
        ("-I 512k", "--max-item-size=512k", "item_size_max: 524288"),
        ("-f 1.5", "--slab-growth-factor=1.5", "growth_factor: 1.5, growth_factor_given: true"),
        ("-n 100", "--slab-min-size=100", "chunk_size: 100, chunk_size_given: true"),
        ("-L", "--enable-largepages", "large_pages: true"),
        ("-k", "--lock-memory", "lock_memory: true"),
        ("-u games", "--user=games", "user: Some(\"games\")"),
        ("-t 2", "--threads=2", "threads: 2"),
        ("-d", "--daemon", "daemonize: true"),
        ("-P /x", "--pidfile=/x", "pid_file: Some(\"/x\")"),
        ("-r", "--enable-coredumps", "max_core_dumps: true"),
        ("-v", "--verbose", "verbosity: 1"),
        ("-vvv", "--verbose=3", "verbosity: 3"),
        ("-A", "--enable-shutdown", "shutdown_command: true"),
        ("-C", "--disable-cas", "use_cas: false"),
        ("-F", "--disable-flush-all", "flush_enabled: false"),
        ("-X", "--disable-dumping", "dump_enabled: false"),
        ("-W", "--disable-watch", "watch_enabled: false"),
        ("-o no_maxconns_fast", "--extended=no_maxconns_fast", "maxconns_fast: false"),
    ] {
        for line in [short, long] {
            let settings = format!("{:?}", run(line));
            assert!(settings.contains(seen), "{line}: {settings}");
        }
    }
    let s = run("-D /");
    assert_eq!((s.prefix_delimiter, s.detail_enabled), (b'/', true));
    assert_eq!(run("-U 0 --udp-port=0").udp_port, 0);
}

#[test]
fn options_are_written_as_getopt_takes_them() {
    let s =
        run("-m64 -vMvc 9 -t 2 -t 3 --memory-l 100 -u root -o modern -o no_modern,maxconns_fast");
    assert_eq!((s.maxbytes, s.verbosity, s.threads), (100 << 20, 2, 3));
    assert_eq!((s.evict, s.max_connections, s.user.as_deref()), (false, 9, Some("root")));
    assert!(s.maxconns_fast && !s.lru_crawler);
    assert_eq!(run("-v --verbose -v").verbosity, 3);
    assert_eq!(run("--user=").user, None);
    assert!(run("stray -m 100").warnings[0].contains("'stray'"));
}

#[test]
fn a_file_of_users_binds_all_listeners() {
    let s = run("-Y /tmp/auth -l proto[ascii]:127.0.0.1,::1");
    assert_eq!(s.auth_file, Some("/tmp/auth".into()));
    assert_eq!((s.protocol, s.warnings.len()), (Protocol::Ascii, 0));
    assert!(s.listen.iter().all(|listen| listen.traits.protocol == Protocol::Ascii));
    assert_eq!(run("-Y /tmp/auth -s /tmp/x").unix_traits.protocol, Protocol::Ascii);
    let s = run("-l proto[negotiating]:127.0.0.1 --auth-file=/tmp/auth");
    assert!(s.warnings[0].contains("-Y") && s.listen[0].traits.protocol == Protocol::Ascii);
    assert!(refusal("-Y /tmp/auth -B auto").starts_with("-Y"));
}

#[test]
fn memory_is_megabytes_unless_a_unit_says_otherwise() {
    assert_eq!(run("-m 64").maxbytes, 64 << 20);
    assert_eq!(run("-m 4g").maxbytes, 4 << 30);
    assert_eq!(run("-m 2048k").maxbytes, 2 << 20);
    assert_eq!(run("-m 256 -I 32m").item_size_max, 32 << 20);
    assert_eq!(run("-I 2097152").item_size_max, 2 << 20);
}

#[test]
fn ports_and_addresses_resolve() {
    assert_eq!(run("-p -1").listen, [listen("", 0)]);
    assert_eq!(run("-p -1").tcp_port, -1);
    assert_eq!(run("-p 0 -l 127.0.0.1:21100").listen, []);
    let s = run("-l ::1 -p 21100 -l 127.0.0.1:21101;localhost -l ::1");
    assert_eq!(
        s.listen,
        [listen("::1", 21100), listen("127.0.0.1", 21101), listen("localhost", 21100)]
    );
    assert_eq!(s.inter.as_deref(), Some("::1,127.0.0.1:21101;localhost"));
    let s = run("-s /tmp/x -l 127.0.0.1");
    assert!(s.listen.is_empty() && s.warnings[0].contains("-l"));
    assert!(run("-l tag_b_:127.0.0.1").warnings[0].contains("tags"));
}

#[test]
fn the_udp_port_is_the_tcp_port_unless_that_is_given() {
    for (line, tcp, udp) in [
        ("", 11211, 0),
        ("-U 0", 11211, 0),
        ("-U 11222", 11222, 11222),
        ("-U -1", -1, -1),
        ("-p 11232 -U 11233", 11232, 11233),
        ("-U 11233 -p 0", 0, 11233),
        ("-p -1 -U 11252", -1, 11252),
        ("-U -1 -p 11262", 11262, -1),
        ("-p 11242 --udp-port=0", 11242, 0),
    ] {
        let s = run(line);
        let system = |port: i32| u16::try_from(port).unwrap_or(0);
        let everywhere =
            |port: i32| if port == 0 { vec![] } else { vec![listen("", system(port))] };
        assert_eq!((s.tcp_port, s.udp_port), (tcp, udp), "{line}");
        assert_eq!((s.listen, s.udp.listen), (everywhere(tcp), everywhere(udp)), "{line}");
        assert_eq!(s.warnings.len(), usize::from(udp != 0), "{line}: {:?}", s.warnings);
    }
    let s = run("-p 1 -U 2 -l ::1,127.0.0.1:3,localhost");
    assert_eq!(s.udp.listen, [listen("::1", 2), listen("127.0.0.1", 3), listen("localhost", 2)]);
    assert_eq!((s.threads_per_udp(), s.warnings.len()), (1, 0), "{:?}", s.warnings);
    assert_eq!(run("-U 2 -l 127.0.0.1 -t 3").threads_per_udp(), 3);
    let s = run("-s /tmp/x -U 11211");
    assert!(s.udp.listen.is_empty() && s.warnings[0].contains("-U has no effect"));
    let s = run("-U 11211 -l 127.0.0.1 -Z -o ssl_chain_cert=a,ssl_key=b");
    assert!(s.warnings.len() == 1 && s.warnings[0].contains("no encryption"), "{:?}", s.warnings);
    assert_eq!(s.udp.listen.len(), 1);
}

#[test]
fn bad_values_end_the_start_with_one_line() {
    for (line, option) in [
        ("-p 65536", "-p"),
        ("-p -2", "-p"),
        ("-p http", "-p"),
        ("-l ,", "-l"),
        ("-l 127.0.0.1:x", "-l"),
        ("-a 8", "-a"),
        ("-a 1777", "-a"),
        ("-U 65536", "-U"),
        ("-U -2", "-U"),
        ("-U udp", "-U"),
        ("-c 0", "-c"),
        ("-c -1", "-c"),
        ("-b -1", "-b"),
        ("-B http", "-B"),
        ("-R 0", "-R"),
        ("-N 0", "-N"),
        ("-N 5", "-N"),
        ("-m 0", "-m"),
        ("-m x", "-m"),
        ("-m 65t", "-m"),
        ("-m 1", "-I"),
        ("-I 1000", "-I"),
        ("-I 256m", "-I"),
        ("-m 4g -I 1025m", "-I"),
        ("-I x", "-I"),
        ("-f 1", "-f"),
        ("-f 1.0", "-f"),
        ("-f x", "-f"),
        ("-n 0", "-n"),
        ("-n 2000000", "-n"),
        ("-t 0", "-t"),
        ("-t 1025", "-t"),
        ("-D ab", "-D"),
        ("-v --verbose=x", "--verbose"),
        ("-o nonsense", "-o nonsense"),
        ("-o hot_lru_pct=50,warm_lru_pct=31", "-o hot_lru_pct"),
        ("-o temporary_ttl=61,no_lru_maintainer", "-o temporary_ttl"),
        ("-o layout=memcached -I 1024", "-o slab_chunk_max"),
        ("-o layout=memcached,no_modern -I 512k", "-o slab_chunk_max"),
        ("-o layout=memcached -I 3000000", "-I"),
        ("-o slab_chunk_max=3 -I 30k", "-o slab_chunk_max"),
        ("-o slab_chunk_max=16 -I 100k", "-I"),
        ("-Q", "unexpected argument '-Q'"),
        ("--frobnicate", "unexpected argument '--frobnicate'"),
        ("-p", "a value is required for '--port"),
    ] {
        let error = refusal(line);
        assert!(error.starts_with(option), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
    }
    let long = format!("-s /{}", "x".repeat(107));
    assert!(refusal(&long).starts_with("-s: a path"));
}

#[test]
fn a_memory_file_is_named() {
    for line in ["-e /tmp/mem", "--memory-file=/tmp/mem"] {
        assert_eq!(run(line).memory_file.as_deref(), Some("/tmp/mem".as_ref()), "{line}");
    }
    let all = run("-e a -o checksum,memory_file_discard");
    assert!(all.checksum && all.memory_file_discard && all.warnings.is_empty());
    let idle = run("-o checksum,memory_file_discard");
    assert_eq!(idle.warnings.len(), 2, "{:?}", idle.warnings);
    assert!(refusal("--memory-file=").starts_with("a value is required for '--memory-file"));
}

#[test]
fn chunk_sizes_follow_memcached() {
    let sizes = |line: &str| {
        let s = run(line);
        (s.item_size_max, s.slab_chunk_max, s.slab_chunk_size_max)
    };
    assert_eq!(sizes(""), (1 << 20, None, 512 << 10));
    assert_eq!(sizes("-I 2m"), (2 << 20, None, 512 << 10));
    assert_eq!(sizes("-I 2m -o no_modern"), (2 << 20, None, 512 << 10));
    assert_eq!(sizes("-o no_chunked_items"), (1 << 20, None, 1 << 20));
    assert_eq!(sizes("-I 1024 -o slab_chunk_max=1"), (1024, Some(1024), 1024));
    assert_eq!(sizes("-I 512k -o slab_chunk_max=16"), (512 << 10, Some(16 << 10), 16 << 10));
    // The compact layout knows no such rule.
    assert_eq!(run("-I 600k").item_size_max, 600 << 10);
    assert_eq!(run("-o slab_sizes=100-200-300").slab_sizes, [100, 200, 300]);
    assert!(refusal("-n 200 -o slab_sizes=100-300").contains("from 200"));
}

#[test]
fn the_first_of_these_wins_over_everything_else() {
    assert!(printed("-c 0 -h").contains("Usage: rustcached"));
    let version = printed("-V");
    assert!(version.starts_with("rustcached ") && version.contains("1.6.45"));
    assert_eq!((version.lines().count(), printed("--version")), (1, version));
    for name in ["MIT", "Apache"] {
        assert!(printed("-i").contains(name) && printed("--license").contains(name));
    }
}

#[test]
fn the_help_is_grouped_and_says_what_there_is() {
    let help = printed("--help");
    for heading in ["Network:", "Memory:", "Process:", "Commands:", "Information:", "Extended:"] {
        assert!(help.lines().any(|line| line == heading), "{heading}\n{help}");
    }
    for option in TABLE.iter().filter(|option| !option.help.is_empty()) {
        assert!(help.contains(&format!("  {}", option.name)), "{}", option.name);
    }
    for line in help.lines() {
        assert!(line.chars().count() <= HELP_WIDTH, "{line}");
    }
    assert!(!help.contains('\u{1b}'));
}

/// memcached's test suite turns whole groups of tests on by these words.
#[test]
fn the_help_names_no_feature_that_is_absent() {
    let help = printed("-h").to_lowercase();
    assert!(help.contains("unix-socket"));
    for word in ["ext_path", "proxy_config"] {
        assert!(!help.contains(word), "{word}");
    }
    assert!(!help.starts_with("memcached 1.1."));
}

#[test]
fn the_option_table_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn bytes_said_to_be_allocated_are_a_number() {
    assert_eq!(initial_malloc(None), Ok(0));
    assert_eq!(initial_malloc(Some(OsStr::new("4294967328"))), Ok(4_294_967_328));
    let error = initial_malloc(Some(OsStr::new("much"))).expect_err("no number");
    assert!(error.starts_with(INITIAL_MALLOC), "{error}");
}
