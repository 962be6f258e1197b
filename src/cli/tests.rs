//! Every line of help that shows a command, and what is refused.

use clap::CommandFactory as _;

use super::*;

fn parsed(line: &str) -> Result<Cli, Exit> {
    let words = std::iter::once("kalshi").chain(line.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| super::exit(&error))
}

fn sandbox(line: &str) -> Sandbox {
    match parsed(line).map(|cli| cli.command) {
        Ok(Command::Sandbox(sandbox)) => *sandbox,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_consistent_and_every_command_has_examples() {
    Cli::command().debug_assert();
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Examples:\n  kalshi "), "{}", command.get_name());
    }
}

#[test]
fn the_examples_parse() {
    let mut lines = 0;
    let mut commands: Vec<_> = Cli::command().get_subcommands().cloned().collect();
    let nested: Vec<_> =
        commands.iter().flat_map(|c| c.get_subcommands().cloned().collect::<Vec<_>>()).collect();
    commands.extend(nested);
    for command in commands {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = |line: &str| line.split_once("kalshi ").map(|(_, rest)| rest.to_owned());
        for line in help.lines().filter(|line| line.starts_with("  ")).filter_map(example) {
            let line = line.split(" > ").next().unwrap().to_owned();
            assert!(parsed(&line).is_ok(), "{line}");
            lines += 1;
        }
    }
    assert!(lines > 10);
}

#[test]
fn files_default_to_those_of_an_installed_host() {
    let Command::Gather(gather) = parsed("gather").unwrap().command else { panic!() };
    assert_eq!((gather.config.to_str(), gather.check), (Some(GATHERER_FILE), false));
    let Command::Dedup(dedup) = parsed("dedup --check").unwrap().command else { panic!() };
    assert_eq!((dedup.config.to_str(), dedup.check), (Some(DEDUPLICATOR_FILE), true));
    for line in ["dedup --check --format json", "dedup --status --format json"] {
        let Command::Dedup(dedup) = parsed(line).unwrap().command else { panic!() };
        assert_eq!(dedup.format, Format::Json, "{line}");
    }
    for line in ["gather --check --format json", "gather --plan --format json"] {
        let Command::Gather(gather) = parsed(line).unwrap().command else { panic!() };
        assert_eq!(gather.format, Format::Json, "{line}");
    }
    let Command::Migrate(migrate) = parsed("migrate --dry-run").unwrap().command else { panic!() };
    assert_eq!((migrate.config.to_str(), migrate.dry_run), (Some(DEDUPLICATOR_FILE), true));
}

#[test]
fn bad_usage_is_64_and_help_is_0() {
    for line in ["--help", "--version", "gather --version", "help sandbox", "sandbox exchange -h"] {
        assert_eq!(parsed(line).map(|_| ()).unwrap_err(), Exit::Stopped, "{line}");
    }
    for line in [
        "",
        "record",
        "gather --confg x",
        "gather --config",
        "migrate --dry-run --status",
        "gather --check --plan",
        "dedup --check --status",
        "dedup --format json",
        "gather --gatherers 2 --check",
        "gather --gatherers 3",
        "gather --format json",
        "gather --plan --gatherers 0",
        "gather --plan --markets-max 0",
        "rotate-password",
        "rotate-password --role a --all",
        "rotate-password --all --secret aws:x",
        "rotate-password --role a --dry-run --rollback",
        "rotate-password --role a --check-age 0d",
        "rotate-password --role a --strategy none",
        "sandbox --gatherers 0",
        "sandbox --connections 0",
        "sandbox --rate -1",
        "sandbox --rate nan",
        "sandbox --duration 60",
        "sandbox --duration 0s",
        "sandbox --markets 0",
        "sandbox --chaos fire",
        "sandbox --replay a --rate 5",
        "sandbox --speed 2",
        "sandbox --listen 127.0.0.1:1",
        "sandbox --keep exchange",
        "sandbox exchange --idle --rate 5",
        "sandbox exchange --listen nowhere",
    ] {
        assert_eq!(parsed(line).map(|_| ()).unwrap_err(), Exit::Usage, "{line}");
    }
}

#[test]
fn options_of_the_sandbox() {
    let all = sandbox(
        "sandbox --markets 50 --rate 0.5 --gatherers 2 --connections 8 --duration 1m30s --seed 7 \
         --chaos cut,kill-gatherer --chaos stop-postgres --format json --keep --dir /tmp/x",
    );
    assert_eq!((all.flow.markets, all.gatherers, all.connections), (50, 2, 8));
    assert_eq!((all.flow.duration, all.flow.seed), (Some(Duration::from_secs(90)), Some(7)));
    let kinds = [ChaosKind::Cut, ChaosKind::KillGatherer, ChaosKind::StopPostgres];
    assert_eq!(all.chaos, kinds.map(Chaos::One));
    assert_eq!(sandbox("sandbox --chaos --duration 10m").chaos, [Chaos::All]);
    assert_eq!(sandbox("sandbox").chaos, []);
    assert_eq!((all.format, all.keep), (Format::Json, true));
    let replay = sandbox("sandbox --replay a.jsonl b.jsonl --speed 20");
    assert_eq!(replay.flow.replay.len(), 2);
    let alone = sandbox("sandbox exchange --listen 127.0.0.1:7000 --idle");
    let Some(SandboxCommand::Exchange(exchange)) = alone.command else { panic!() };
    assert!(exchange.idle && exchange.listen.port() == 7000);
}
