//! What the real binary prints, refuses and exits with.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::gguf_writer::tiny_llama;
use crate::program::{Program, Ran, contents, finish};

const PASSWORD: &str = "a quiet blue kettle\n";

#[test]
fn the_version_the_help_and_completions_are_printed() {
    let program = Program::new();
    let version = format!("mommygpt {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(program.good(&["version"], "").stdout, version);
    assert_eq!(program.good(&["--version"], "").stdout, version);
    let help = program.good(&["--help"], "").stdout;
    for verb in ["serve", "run", "user", "backup", "restore", "doctor", "tls", "tokenize"] {
        assert!(help.contains(verb), "{verb} is missing in\n{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(program.good(&["completions", shell], "").stdout.contains("mommygpt"), "{shell}");
    }
    assert!(!program.data().exists(), "looking at the program must not make data");
}

#[test]
fn wrong_usage_is_2_with_a_line_that_names_it_and_makes_nothing() {
    let program = Program::new();
    for (args, named) in [
        (&["fly"][..], "fly"),
        (&["serve", "--port", "70000"], "70000"),
        (&["serve", "--host", "example.org"], "example.org"),
        (&["serve", "--signup", "maybe"], "maybe"),
        (&["serve", "--device", "tpu"], "tpu"),
        (&["serve", "-np", "0"], "--parallel 0"),
        (&["serve", "--tls-cert", "x.pem"], "--tls-key"),
        (&["serve", "--trusted-proxy", "somewhere"], "somewhere"),
        (&["user", "add", "not-an-address"], "not-an-address"),
        (&["user", "role", "ada@example.org", "king"], "king"),
        (&["user", "add", "ada@example.org"], "stdin"),
        (&["user", "rm", "ada@example.org"], "--yes"),
        (&["prompt"], "--template"),
    ] {
        let ran = program.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(named), "{args:?}: {ran:?}");
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    assert!(!program.data().exists());
}

#[test]
fn a_setting_comes_from_the_flag_then_the_environment_then_the_file() {
    let program = Program::new();
    let taken: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<String> = taken.iter().map(|l| l.local_addr().unwrap().port().to_string()).collect();
    fs::create_dir(program.data()).unwrap();
    fs::write(program.data().join("config.toml"), format!("port = {}\n", ports[2])).unwrap();
    // Each of the three ports is in use, and the refusal says which one was taken.
    let refused = |port: &str, command| {
        let ran = finish(command, "");
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains(&format!("port {port} on 127.0.0.1 is in use")), "{ran:?}");
    };
    refused(&ports[2], program.command(&["serve"]));
    let mut command = program.command(&["serve"]);
    command.env("MOMMYGPT_PORT", &ports[1]);
    refused(&ports[1], command);
    let mut command = program.command(&["serve", "--port", &ports[0]]);
    command.env("MOMMYGPT_PORT", &ports[1]);
    refused(&ports[0], command);

    fs::write(program.data().join("config.toml"), "prot = 4467\n").unwrap();
    let ran = program.run(&["serve"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("config.toml") && ran.stderr.contains("prot"), "{ran:?}");
}

#[test]
fn the_environment_is_checked() {
    let program = Program::new();
    for (name, value) in
        [("MOMMYGPT_FORCE_ISA", "sse9"), ("SOURCE_DATE_EPOCH", "yesterday"), ("RUST_LOG", "a=b=c")]
    {
        let mut command = program.command(&["version"]);
        command.env(name, value);
        let ran = finish(command, "");
        assert_eq!(ran.code, 2, "{name}: {ran:?}");
        assert!(ran.stderr.contains(name) && ran.stderr.contains(value), "{ran:?}");
    }
    let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let mut command = program.command(&["version"]);
    command.env("MOMMYGPT_FORCE_ISA", foreign);
    assert_eq!(finish(command, "").code, 2);
    let mut command = program.command(&["version"]);
    command.env("MOMMYGPT_FORCE_ISA", "scalar").env("NO_COLOR", "1");
    assert_eq!(finish(command, "").code, 0);
}

#[test]
fn whoever_closes_the_pipe_early_has_what_they_wanted() {
    let program = Program::new();
    for args in [&["completions", "bash"][..], &["--help"], &["list"]] {
        let mut child = program.command(args).spawn().unwrap();
        drop(child.stdout.take());
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn accounts_round_trip(program: &Program) {
    let added = program.good(&["user", "add", "Ada@example.org", "--name", "Ada L"], PASSWORD);
    assert_eq!(added.stdout.lines().next().unwrap(), "ada@example.org is now admin.");
    let code = added.after("Recovery code: ").to_owned();
    assert_eq!(code.split('-').count(), 8);
    let added = program.good(&["user", "add", "bob@example.org", "--role", "child"], PASSWORD);
    assert!(added.stdout.starts_with("bob@example.org is now child."));
    let again = program.run_with(&["user", "add", "ADA@example.org"], PASSWORD);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("there is an account"), "{again:?}");
    let weak = program.run_with(&["user", "add", "eve@example.org"], "short\n");
    assert_eq!(weak.code, 1, "{weak:?}");
    assert!(weak.stderr.contains("at least 8"), "{weak:?}");

    let list = program.good(&["user", "list"], "").stdout;
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.lines().nth(1).unwrap().starts_with("ada@example.org") && list.contains("Ada L"), "{list}");

    let last = program.run(&["user", "role", "ada@example.org", "member"]);
    assert_eq!(last.code, 1, "{last:?}");
    assert!(last.stderr.contains("last admin"), "{last:?}");
    program.good(&["user", "role", "bob@example.org", "member"], "");
    program.good(&["user", "disable", "bob@example.org"], "");
    assert!(program.good(&["user", "list"], "").stdout.contains("disabled"));
    program.good(&["user", "disable", "bob@example.org", "--undo"], "");

    let unasked = program.run_with(&["user", "passwd", "ada@example.org"], "a new kettle\n");
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(unasked.stderr.contains("chats"), "{unasked:?}");
    let wrong = format!("a new kettle\n{}\n", "0000-".repeat(8).trim_end_matches('-'));
    let wrong = program.run_with(&["user", "passwd", "ada@example.org", "--recovery-code"], &wrong);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let right = format!("a new kettle\n{code}\n");
    let set = program.good(&["user", "passwd", "ada@example.org", "--recovery-code"], &right);
    assert_ne!(set.after("Recovery code: "), code);
    program.good(&["user", "passwd", "bob@example.org", "--yes"], "another kettle\n");

    program.good(&["user", "rm", "bob@example.org", "--yes"], "");
    let gone = program.run(&["user", "rm", "bob@example.org", "--yes"]);
    assert_eq!(gone.code, 1, "{gone:?}");
    assert!(gone.stderr.contains("bob@example.org") && gone.stderr.contains("user list"), "{gone:?}");
    let invited = program.good(&["user", "invite", "--role", "member"], "").stdout;
    assert!(invited.starts_with("mgi_"), "{invited}");
}

#[test]
fn accounts_are_managed_without_a_server() {
    let program = Program::new();
    accounts_round_trip(&program);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(program.data()), 0o700);
    for entry in fs::read_dir(program.data()).unwrap().flatten() {
        assert_eq!(mode(entry.path()), 0o600, "{:?}", entry.path());
    }
}

#[test]
fn accounts_are_managed_through_a_running_server_and_its_sessions_end() {
    let program = Program::new();
    let server = program.serve(&[]);
    accounts_round_trip(&program);
    let mode = fs::metadata(program.data().join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let sign_in = json!({"email": "ada@example.org", "password": "a new kettle"});
    let (status, answer) = server.post("/api/auth/signin", &sign_in);
    assert_eq!(status, 200, "{answer}");
    let token = answer["session_token"].as_str().unwrap().to_owned();
    assert_eq!(server.get("/api/me", &token), 200);
    program.good(&["user", "passwd", "ada@example.org", "--yes"], "yet another kettle\n");
    assert_eq!(server.get("/api/me", &token), 401);

    let invite = program.good(&["user", "invite"], "").stdout.lines().next().unwrap().to_owned();
    let form = json!({"email": "kid@example.org", "password": "a small kettle", "invite": invite});
    assert_eq!(server.post("/api/auth/signup", &form).0, 201);
    assert_eq!(server.post("/api/auth/signup", &form).0, 403);
}

#[test]
fn a_second_server_on_the_same_data_and_a_port_in_use_are_refused() {
    let program = Program::new();
    let server = program.serve(&[]);
    let second = program.run(&["serve", "--port", "0"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("another mommygpt is using this data directory"), "{second:?}");
    assert_eq!(server.get("/health/live", ""), 200);

    let other = Program::new();
    let taken = other.run(&["serve", "--port", server.port()]);
    assert_eq!(taken.code, 1, "{taken:?}");
    let said = format!("port {} on 127.0.0.1 is in use", server.port());
    assert!(taken.stderr.contains(&said) && taken.stderr.contains("--port"), "{taken:?}");
}

#[test]
fn a_signal_ends_the_server_well_and_soon() {
    for signal in ["-TERM", "-INT"] {
        let program = Program::new();
        let server = program.serve(&[]);
        let (code, took) = server.stop(signal);
        assert_eq!(code, 0, "{signal}");
        assert!(took < Duration::from_secs(5), "{signal} took {took:?}");
        assert!(!program.data().join("control.sock").exists());
        program.good(&["check"], "");
    }
}

#[test]
fn the_setup_code_is_printed_when_others_can_reach_the_server() {
    let program = Program::new();
    let mut server = program.serve(&["--host", "0.0.0.0"]);
    let mut line = server.line();
    while !line.starts_with("Setup code") {
        assert!(!line.is_empty(), "no setup code after {:?}", server.greeting);
        line = server.line();
    }
    let code = line.trim().rsplit(' ').next().unwrap().to_owned();
    let mut form = json!({"email": "ada@example.org", "password": "a quiet blue kettle"});
    assert_eq!(server.post("/api/auth/signup", &form).0, 403);
    form["setup_code"] = json!(code);
    let (status, answer) = server.post("/api/auth/signup", &form);
    assert_eq!((status, answer["user"]["role"].as_str()), (201, Some("admin")), "{answer}");
    form["email"] = json!("bob@example.org");
    assert_eq!(server.post("/api/auth/signup", &form).0, 403);
    drop(server);

    // With an account there is no code any more.
    let server = program.serve(&["--host", "0.0.0.0"]);
    assert!(!server.greeting.contains("Setup code"));
}

#[test]
fn a_bad_database_is_3_names_restore_and_stays_as_it_is() {
    for bytes in [b"not a database at all".to_vec(), vec![0; 1 << 16], Vec::new()] {
        let program = Program::new();
        fs::create_dir(program.data()).unwrap();
        fs::write(program.data().join("mommygpt.redb"), &bytes).unwrap();
        for args in [&["serve", "--port", "0"][..], &["user", "list"], &["check"]] {
            let ran = program.run(args);
            assert_eq!(ran.code, 3, "{args:?}: {ran:?}");
            assert!(ran.stderr.contains("restore"), "{args:?}: {ran:?}");
            assert_eq!(fs::read(program.data().join("mommygpt.redb")).unwrap(), bytes, "{args:?}");
        }
    }
}

#[test]
fn a_backup_brings_back_what_was_there_when_it_was_made() {
    let program = Program::new();
    let file = program.beside("family.backup");
    let path = file.to_str().unwrap();
    assert_eq!(program.run(&["backup", path]).code, 1);
    program.good(&["user", "add", "ada@example.org"], PASSWORD);
    let server = program.serve(&[]);
    program.good(&["backup", "family.backup"], "");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = program.run(&["backup", path]);
    assert_eq!(again.code, 1, "{again:?}");
    let sign_in = json!({"email": "ada@example.org", "password": PASSWORD.trim_end()});
    let token = server.post("/api/auth/signin", &sign_in).1["session_token"].as_str().unwrap().to_owned();
    let running = program.run(&["restore", path, "--yes"]);
    assert_eq!(running.code, 1, "{running:?}");
    assert!(running.stderr.contains("stop it first"), "{running:?}");
    program.good(&["check"], "");
    assert_eq!(server.stop("-TERM").0, 0);

    program.good(&["user", "add", "bob@example.org"], PASSWORD);
    let before = contents(&program.data());
    let unasked = program.run(&["restore", path]);
    assert_eq!(unasked.code, 2, "{unasked:?}");
    let broken = program.beside("broken.backup");
    let mut bytes = fs::read(&file).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(&broken, bytes).unwrap();
    let refused = program.run(&["restore", broken.to_str().unwrap(), "--yes"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert_eq!(contents(&program.data()), before, "a refused restore changed something");

    program.good(&["restore", path, "--yes"], "");
    let list = program.good(&["user", "list"], "").stdout;
    assert!(list.contains("ada@example.org") && !list.contains("bob@example.org"), "{list}");
    program.good(&["check"], "");
    let server = program.serve(&[]);
    assert_eq!(server.get("/api/me", &token), 401, "a session outlived a restore");
    assert_eq!(server.post("/api/auth/signin", &sign_in).0, 200);

    // On another machine, where there is nothing yet.
    let elsewhere = Program::new();
    elsewhere.good(&["restore", path], "");
    assert!(elsewhere.good(&["user", "list"], "").stdout.contains("ada@example.org"));
}

#[test]
fn certificates_are_made_and_served() {
    let program = Program::new();
    let unmade = program.run(&["serve", "--tls", "--port", "0"]);
    assert_eq!(unmade.code, 1, "{unmade:?}");
    assert!(unmade.stderr.contains("mommygpt tls"), "{unmade:?}");
    let first = program.good(&["tls", "mommy.example.org"], "").stdout;
    let fingerprint = first.lines().find(|line| line.len() == 95 && line.contains(':')).unwrap();
    assert!(program.good(&["tls"], "").stdout.contains(fingerprint));
    let mut child =
        program.command(&["serve", "--tls", "--port", "0"]).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("https://127.0.0.1:"), "{line}");
}

#[test]
fn the_doctor_finds_nothing_here_and_a_model_that_is_none() {
    let program = Program::new();
    // The one problem that a machine busy with tests really has at times.
    let is_well = |ran: &Ran| {
        let problems: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("problem: ")).collect();
        problems.iter().all(|line| line.contains("this disk makes writing slow"))
            && ran.code == i32::from(!problems.is_empty())
    };
    let ran = program.run(&["doctor"]);
    assert!(is_well(&ran), "{ran:?}");
    for what in ["cores", "instruction sets", "memory", "durable writes", "it loads"] {
        assert!(ran.stdout.contains(what), "{what}: {ran:?}");
    }
    // Of what `serve` would take: by flag, by environment, by file.
    fs::write(program.beside("bad.gguf"), "GGUF and nothing else").unwrap();
    let bad = program.beside("bad.gguf");
    let typed = program.run(&["doctor", "-m", bad.to_str().unwrap()]);
    let mut command = program.command(&["doctor"]);
    command.env("MOMMYGPT_MODEL", &bad);
    let meant = finish(command, "");
    for ran in [typed, meant] {
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stdout.contains("problem: ") && ran.stdout.contains("bad.gguf"), "{ran:?}");
    }
    let tiny = program.beside("tiny.gguf");
    fs::write(&tiny, tiny_llama().bytes()).unwrap();
    let ran = program.run(&["doctor", "-m", tiny.to_str().unwrap(), "-c", "64"]);
    assert!(is_well(&ran), "{ran:?}");
    assert!(ran.stdout.contains("tiny") && ran.stdout.contains("64 tokens"), "{ran:?}");
    fs::create_dir_all(program.data().join("models")).unwrap();
    fs::write(program.data().join("config.toml"), "model = \"nothing-here\"\n").unwrap();
    let ran = program.run(&["doctor"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("nothing-here"), "{ran:?}");
}
