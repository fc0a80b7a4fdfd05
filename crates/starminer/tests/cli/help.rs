//! Every command's help, as text that is kept beside this test: a change of help is seen in review. `UPDATE_SNAPSHOTS=1` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::{Cli, exit};

/// The help of every command there is, found by following the lists of commands in the help itself.
fn every_help(cli: &Cli) -> BTreeMap<Vec<String>, String> {
    let mut helps = BTreeMap::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(command) = open.pop() {
        let said = cli.run(command.iter().map(String::as_str).chain(["--help"]));
        let help = said.exits(exit::OK).to_string();
        assert_eq!(said.err, "", "help is a result");
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        // Descriptions that wrap are indented further.
        for line in listed.filter(|line| !line.starts_with("   ")) {
            let name = line.split_whitespace().next().unwrap();
            if name != "help" {
                open.push(command.iter().cloned().chain([name.to_string()]).collect());
            }
        }
        helps.insert(command, help);
    }
    helps
}

#[test]
fn every_help_is_as_kept() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots");
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some_and(|value| value == "1");
    let helps = every_help(&Cli::new());
    let mut expected = BTreeSet::new();
    let mut differ = Vec::new();
    for (command, help) in &helps {
        let name = if command.is_empty() { "starminer.txt".to_string() } else { format!("{}.txt", command.join("-")) };
        let path = dir.join(&name);
        if update {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, help).unwrap();
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(help) {
            differ.push(format!("{name} should be:\n{help}"));
        }
        expected.insert(name);
    }
    for entry in std::fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !expected.contains(&name) {
            differ.push(format!("{name} is of no command"));
        }
    }
    assert!(differ.is_empty(), "UPDATE_SNAPSHOTS=1 writes them anew\n{}", differ.join("\n"));
}

#[test]
fn every_everyday_command_is_there() {
    let helps = every_help(&Cli::new());
    let everyday = "coordinator init,coordinator run,broker run,node run,node doctor,endorsements fetch,endorsements list,endorsements export,endorsements import,run,submit,status,logs,result,cancel,verify,appraise snp,appraise dcap,appraise tpm-ek,appraise tpm,appraise eventlog,appraise ima,appraise nvidia,reference snp,reference tdx,reference pcrs,reference program,reference merge,reference sign,reference cosign,reference verify,reference show,image build,node disk status,vault seal,vault open,key new,key show,demo,image measure,host run";
    for command in everyday.split(',') {
        let command: Vec<String> = command.split(' ').map(str::to_string).collect();
        assert!(helps.contains_key(&command), "{command:?}");
    }
}

#[test]
fn every_help_teaches_by_examples_that_exist() {
    let helps = every_help(&Cli::new());
    for (command, help) in &helps {
        let examples: Vec<&str> =
            help.lines().skip_while(|line| *line != "Examples:").skip(1).take_while(|line| !line.is_empty()).collect();
        let own = format!("starminer {}", command.join(" "));
        assert!(examples.iter().any(|line| line.contains(own.trim_end())), "{command:?} has no example of itself");
        // A line that was too wide would go on without its indent.
        assert!(examples.iter().all(|line| line.starts_with("  ")), "{command:?} has examples that wrap: {examples:?}");
        assert!(help.lines().all(|line| line.len() <= 100), "{command:?} is wider than a terminal");
        for line in &examples {
            let Some((_, call)) = line.split_once("starminer ") else { continue };
            let words: Vec<&str> = call.split_whitespace().collect();
            let named: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
            let known = (1..=2.min(named.len())).rev().find_map(|length| helps.get(&named[..length]));
            let known = known.unwrap_or_else(|| panic!("{command:?} shows a command that does not exist: {line}"));
            for option in words.iter().take_while(|word| **word != "--").filter(|word| word.starts_with("--")) {
                assert!(known.contains(option), "{command:?} shows an option that does not exist: {line}");
            }
        }
    }
}
