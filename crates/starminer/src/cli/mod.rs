//! The command line: arguments, dispatch, output, exit codes.

mod appraise;
mod args;
mod broker;
mod collected;
mod coordinator;
mod disk;
mod doctor;
mod endorsements;
pub mod exit;
mod files;
mod home;
mod host;
mod image;
mod interrupt;
mod job;
mod job_file;
mod key;
mod node;
mod reference;
mod run;
mod service;
mod task;
mod terminal;
mod vault;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

pub use args::Args;
use args::{BrokerCommand, Command, CoordinatorCommand, EndorsementsCommand, KeyCommand, NodeCommand, VaultCommand};
use exit::Failure;
use starminer_verify::Party;
pub use terminal::Terminal;
pub use verify::now as clock_now;

/// Runs the command and tells how it went.
pub fn dispatch(args: Args) -> ExitCode {
    let stdout_is_data = match &args.command {
        Command::Vault(VaultCommand::Seal(vault) | VaultCommand::Open(vault)) => vault.writes_stdout(),
        Command::Endorsements(EndorsementsCommand::Export(export)) => export.file.as_os_str() == "-",
        _ => false,
    };
    let terminal = Terminal::new(args.json, args.quiet, stdout_is_data);
    terminal.start_diagnostics(&args.diagnostics);
    let outcome = match args.command {
        Command::Demo(args) => crate::demo::run(&terminal, &args),
        Command::Run(args) => run::run(&terminal, args),
        Command::Submit(args) => run::submit(&terminal, args),
        Command::Status(args) => task::status(&terminal, &args),
        Command::Logs(args) => task::logs(&terminal, &args),
        Command::Result(args) => task::result(&terminal, &args),
        Command::Cancel(args) => task::cancel(&terminal, &args),
        Command::Verify(args) => verify::verify(&terminal, &args),
        Command::Appraise(command) => appraise::appraise(&terminal, &command),
        Command::Endorsements(command) => endorsements::endorsements(&terminal, &command),
        Command::Host(command) => host::host(&terminal, &command).map_err(|failure| failure.at(Party::Node)),
        Command::Image(command) => image::image(&terminal, &command).map_err(|failure| failure.at(Party::Node)),
        Command::Reference(command) => reference::reference(&terminal, &command),
        Command::Vault(VaultCommand::Seal(args)) => vault::seal(&terminal, &args),
        Command::Vault(VaultCommand::Open(args)) => vault::open(&terminal, &args),
        Command::Key(KeyCommand::New(args)) => key::new(&terminal, &args),
        Command::Key(KeyCommand::Show(args)) => key::show(&terminal, &args),
        Command::Coordinator(CoordinatorCommand::Init(args)) => coordinator::init(&terminal, &args),
        Command::Coordinator(CoordinatorCommand::Run(args)) => {
            coordinator::run(&terminal, &args).map_err(|failure| failure.at(Party::Coordinator))
        }
        Command::Broker(BrokerCommand::Init(args)) => broker::init(&terminal, &args),
        Command::Broker(BrokerCommand::Run(args)) => {
            broker::run(&terminal, &args).map_err(|failure| failure.at(Party::Broker))
        }
        Command::Node(NodeCommand::Init(args)) => node::init(&terminal, &args),
        Command::Node(NodeCommand::Doctor(args)) => {
            doctor::doctor(&terminal, &args).map_err(|failure| failure.at(Party::Node))
        }
        Command::Node(NodeCommand::Disk(command)) => disk::disk(&terminal, &command),
        Command::Node(NodeCommand::Run(args)) => node::run(&terminal, &args).map_err(|failure| failure.at(Party::Node)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            terminal.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Parses the command line. Help, version and a call that cannot be used end here, the latter as JSON where `--json` was said.
pub fn parse() -> Result<Args, ExitCode> {
    Args::try_parse().map_err(|error| {
        let json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
        let informs = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        if informs || !json {
            // A closed pipe (`--help | head`) is no error of ours.
            let _ = error.print();
            return ExitCode::from(if informs { exit::OK } else { exit::UNUSABLE });
        }
        let text = error.render().to_string();
        let paragraph = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let reason = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let failure = Failure::usage("call.unusable", reason, "see the command's --help; it has examples");
        Terminal::new(true, true, false).failure(&failure);
        ExitCode::from(failure.exit_code())
    })
}

/// What the demonstration, which is a user of these commands, needs of them.
pub mod demo_support {
    pub use starminer_requester::Home;

    pub use super::args::{DemoArgs, HomeArgs};
    pub use super::exit::{self, Failure};
    pub use super::home::{block_on, home_failure, open as open_home, requester_failure};
    pub use super::interrupt::Interrupt;
    pub use super::run::tell;
    pub use super::terminal::{Style, Terminal, human_bytes, quoted, short};
    pub use super::verify::{now as clock_now, show as show_verdict};
}
