//! QEMU's monitor protocol, as far as we need it: commands with answers, and events.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

/// How long QEMU may take for an answer: it takes its turn behind the vCPUs of a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// An event that QEMU sent by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guest reported a panic by `pvpanic`; the machine is stopped.
    Panicked,
    /// The guest ended the machine, by `isa-debug-exit` or by powering off; the machine is stopped.
    ShutDown,
    /// The guest reset the machine, as a triple fault does; the machine is stopped.
    Reset,
}

/// Why the monitor cannot be used.
#[derive(Debug, Error)]
pub enum QmpError {
    /// The connection failed: QEMU is gone.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// QEMU ended the connection.
    #[error("QEMU closed the connection")]
    Closed,
    /// No answer.
    #[error("no answer to {command} within {} s", PATIENCE.as_secs())]
    Silent {
        /// The command.
        command: String,
    },
    /// QEMU refused a command.
    #[error("{command} was refused: {answer}")]
    Refused {
        /// The command.
        command: String,
        /// What QEMU says.
        answer: String,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    answers: Receiver<Value>,
}

impl Qmp {
    /// Starts to speak on `stream`. Events go to `on_event`, on a thread of their own.
    ///
    /// # Errors
    /// QEMU does not greet as it should.
    pub fn connect(
        stream: UnixStream,
        mut on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, QmpError> {
        let (sender, answers) = channel();
        let reader = BufReader::new(stream.try_clone()?);
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                if value.get("event").is_some() {
                    if let Some(event) = event(&value) {
                        on_event(event);
                    }
                } else if value.get("QMP").is_none() && sender.send(value).is_err() {
                    break;
                }
            }
        });
        let mut qmp = Self { stream, answers };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// QEMU refuses, is silent or gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream, "{line}")?;
        let mut answer = match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return Err(QmpError::Silent { command: command.to_owned() }),
            Err(RecvTimeoutError::Disconnected) => return Err(QmpError::Closed),
        };
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(QmpError::Refused { command: command.to_owned(), answer: answer.to_string() }),
        }
    }

    /// Gives a command of the human monitor, as seen from one vCPU, and returns its text.
    ///
    /// # Errors
    /// QEMU refuses, is silent or gone.
    pub fn human(&mut self, command: &str, cpu: u32) -> Result<String, QmpError> {
        let arguments = json!({ "command-line": command, "cpu-index": cpu });
        let answer = self.execute("human-monitor-command", arguments)?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Stops all vCPUs.
    ///
    /// # Errors
    /// QEMU refuses, is silent or gone.
    pub fn stop(&mut self) -> Result<(), QmpError> {
        self.execute("stop", json!({})).map(drop)
    }

    /// Ends QEMU, with the exit status that the guest asked for, if it did.
    ///
    /// # Errors
    /// The connection is gone; QEMU may have ended before it could answer.
    pub fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit", json!({})).map(drop)
    }
}

/// The event in a message, if it is one that we act on.
fn event(message: &Value) -> Option<Event> {
    let reason = message.get("data").and_then(|data| data.get("reason")).and_then(Value::as_str);
    match (message.get("event")?.as_str()?, reason) {
        ("GUEST_PANICKED", _) => Some(Event::Panicked),
        ("SHUTDOWN", Some("guest-reset")) => Some(Event::Reset),
        ("SHUTDOWN", Some("guest-shutdown")) => Some(Event::ShutDown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays QEMU: greets, then gives the lines of `script` after each command.
    fn play(mut stream: UnixStream, script: &'static [&'static str]) {
        std::thread::spawn(move || {
            stream.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n").unwrap();
            let commands = BufReader::new(stream.try_clone().unwrap()).lines();
            for (answer, command) in script.iter().zip(commands) {
                assert!(command.unwrap().starts_with(r#"{"arguments":"#));
                writeln!(stream, "{answer}").unwrap();
            }
        });
    }

    #[test]
    fn answers_and_events_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        play(
            theirs,
            &[
                r#"{"return": {}}"#,
                concat!(
                    r#"{"event": "STOP"}"#,
                    "\n",
                    r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
                    "\n",
                    r#"{"return": "CPU#0\r\n"}"#
                ),
                r#"{"error": {"class": "GenericError", "desc": "no"}}"#,
            ],
        );
        let (sender, events) = channel();
        let mut qmp = Qmp::connect(ours, move |event| sender.send(event).unwrap()).unwrap();
        assert_eq!(qmp.human("info registers", 0).unwrap(), "CPU#0\r\n");
        assert_eq!(events.recv().unwrap(), Event::Reset);
        let refused = qmp.stop().unwrap_err().to_string();
        assert!(refused.starts_with("stop was refused: {"), "{refused}");
        assert!(matches!(qmp.quit(), Err(QmpError::Closed | QmpError::Lost(_))));
    }

    #[test]
    fn reasons_of_a_shutdown_are_told_apart() {
        let of = |text: &str| event(&serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"event": "GUEST_PANICKED", "data": {"action": "pause"}}"#), Some(Event::Panicked));
        assert_eq!(
            of(r#"{"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}}"#),
            Some(Event::ShutDown)
        );
        assert_eq!(of(r#"{"event": "SHUTDOWN", "data": {"reason": "host-qmp-quit"}}"#), None);
        assert_eq!(of(r#"{"event": "RESUME"}"#), None);
    }
}
