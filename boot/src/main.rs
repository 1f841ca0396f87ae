//! The host command `killifish`.

use std::process::ExitCode;

use clap::Parser as _;
use killifish::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match killifish::commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(failure) = error.failure() {
                eprintln!("{failure}\n");
            }
            eprintln!("killifish: {error}");
            ExitCode::from(error.exit().code())
        }
    }
}
