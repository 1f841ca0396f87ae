//! The command line.

use core::num::NonZero;
use std::string::{String, ToString};
use std::vec::Vec;

use log::LevelFilter;
use proptest::prelude::*;

use crate::{
    Accelerator, CommandLine, CommandLineError, LongCommandLine, MAX_COMMAND_LINE, Names, POLICIES, Setting,
    Settings, Word, Words,
};

fn line(text: &str) -> CommandLine {
    CommandLine::new(text.as_bytes()).expect("short enough")
}

fn names<'a>(names: &Names<'a>) -> Vec<&'a str> {
    names.iter().collect()
}

#[track_caller]
fn says(line: &[u8], message: &str) {
    let error = Settings::new(line).find_map(Result::err).expect("a wrong word");
    assert_eq!(error.to_string(), message);
}

#[test]
fn words_are_split_at_white_space() {
    let line = line("\t a=1  bb=x=y\n\nlong.key=/a,b:c \r\n");
    let words: Vec<_> = line.words().map(|word| word.expect("well-formed")).collect();
    let expected = [("a=1", "a", "1"), ("bb=x=y", "bb", "x=y"), ("long.key=/a,b:c", "long.key", "/a,b:c")]
        .map(|(text, key, value)| Word { text, key, value });
    assert_eq!(words, expected);
    assert_eq!(CommandLine::EMPTY.words().count(), 0);
    assert_eq!(Words::new(b" \t\n").count(), 0);
}

#[test]
fn every_setting_has_its_type() {
    let line = line(
        "bench=syscall,yield cpus=8 seed=0x2a log=info scenario=vectors \
                     nodes=2 accel=icount samples=40 policy=worst exit=1",
    );
    let settings: Vec<_> = line.settings().map(|setting| setting.expect("well-formed")).collect();
    let [Setting::Bench(bench), rest @ ..] = settings.as_slice() else {
        panic!("the benchmarks come first: {settings:?}");
    };
    assert_eq!(names(bench), ["syscall", "yield"]);
    assert_eq!(
        rest,
        [
            Setting::Cpus(NonZero::new(8).expect("not zero")),
            Setting::Seed(42),
            Setting::Log(LevelFilter::Info),
            Setting::Scenario("vectors"),
            Setting::Nodes(NonZero::new(2).expect("not zero")),
            Setting::Accel(Accelerator::Icount),
            Setting::Samples(NonZero::new(40).expect("not zero")),
            Setting::Policy("worst"),
            Setting::Exit,
        ]
    );
}

#[test]
fn every_level_has_its_name() {
    for (name, level) in [
        ("off", LevelFilter::Off),
        ("error", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
        ("trace", LevelFilter::Trace),
    ] {
        let text = String::from("log=") + name;
        assert_eq!(Settings::new(text.as_bytes()).next(), Some(Ok(Setting::Log(level))));
    }
}

#[test]
fn every_accelerator_has_its_word() {
    for (name, accelerator) in
        [("icount", Accelerator::Icount), ("tcg", Accelerator::Tcg), ("kvm", Accelerator::Kvm)]
    {
        let text = String::from("accel=") + name;
        assert_eq!(Settings::new(text.as_bytes()).next(), Some(Ok(Setting::Accel(accelerator))));
        assert_eq!(accelerator.to_string(), name);
    }
}

#[test]
fn every_policy_has_its_word() {
    for &policy in POLICIES {
        let text = String::from("policy=") + policy;
        assert_eq!(Settings::new(text.as_bytes()).next(), Some(Ok(Setting::Policy(policy))));
    }
}

#[test]
fn the_end_of_the_machine_is_seen_on_a_wrong_line() {
    for text in ["exit=1", "cpus=0 colour=red exit=1", "exit=1 exit=1", "exit=now"] {
        assert!(line(text).ends_machine(), "{text}");
    }
    for text in ["", "bench=exit", "exits=1", "exit", "exit="] {
        assert!(!line(text).ends_machine(), "{text}");
    }
}

#[test]
fn a_wrong_word_is_named() {
    says(b"seed=1 log=\xffx", "\"log=\\xffx\" on the command line is not printable ASCII");
    says("größe=1".as_bytes(), "\"gr\\xc3\\xb6\\xc3\\x9fe=1\" on the command line is not printable ASCII");
    says(b"seed=\x01", "\"seed=\\x01\" on the command line is not printable ASCII");
    says(b"seed=1 verbose", "\"verbose\" on the command line is not of the form key=value");
    says(b"=syscall", "\"=syscall\" on the command line has nothing before the =");
    says(b"bench=", "\"bench=\" on the command line has nothing after the =");
    says(
        b"benhc=syscall",
        "\"benhc=syscall\" on the command line has an unknown key; there are bench, scenario, cpus, nodes, seed, \
         accel, samples, calls, victim, policy, log and exit",
    );
    says(b"seed=1 log=info seed=1", "\"seed=1\" on the command line has the key of an earlier word");
    says(b"seed=-1", "\"seed=-1\" on the command line needs a number from 0 to 18446744073709551615");
    says(b"cpus=0", "\"cpus=0\" on the command line needs a number from 1 to 4294967295");
    says(
        b"log=loud",
        "\"log=loud\" on the command line needs one of off, error, warn, info, debug and trace",
    );
    says(b"nodes=0", "\"nodes=0\" on the command line needs a number from 1 to 4294967295");
    says(b"samples=many", "\"samples=many\" on the command line needs a number from 1 to 1048576");
    says(b"samples=1048577", "\"samples=1048577\" on the command line needs a number from 1 to 1048576");
    says(b"accel=native", "\"accel=native\" on the command line needs one of icount, tcg and kvm");
    for value in ["wurst", "Worst", "producer,consumer"] {
        let word = String::from("policy=") + value;
        let valid = "needs one of producer, consumer, split-poller, interleave, worst, creator, split-writer, \
                     consumer-data, random and auto";
        says(word.as_bytes(), &std::format!("\"{word}\" on the command line {valid}"));
    }
    for value in ["0", "2", "yes"] {
        let word = String::from("exit=") + value;
        let advice = "needs the value 1; to keep the system up, leave the word out";
        says(word.as_bytes(), &std::format!("\"{word}\" on the command line {advice}"));
    }
    says(b"bench=a,,b", "\"bench=a,,b\" on the command line has an empty name in its list");
    says(b"bench=,", "\"bench=,\" on the command line has an empty name in its list");
}

#[test]
fn words_after_a_wrong_one_still_follow() {
    let line = line("what seed=3 seed=4 log=info");
    let settings: Vec<_> = line.settings().collect();
    assert_eq!(
        settings,
        [
            Err(CommandLineError::NoEqualsSign("what")),
            Ok(Setting::Seed(3)),
            Err(CommandLineError::Repeated("seed=4")),
            Ok(Setting::Log(LevelFilter::Info)),
        ]
    );
}

#[test]
fn numbers_have_bounds() {
    let number = |text: &str, least, greatest| {
        let line = line(text);
        line.words().next().expect("a word").expect("well-formed").number(least, greatest).ok()
    };
    assert_eq!(number("n=18446744073709551615", 0, u64::MAX), Some(u64::MAX));
    assert_eq!(number("n=18446744073709551616", 0, u64::MAX), None);
    assert_eq!(number("n=0xffffffffffffffff", 0, u64::MAX), Some(u64::MAX));
    assert_eq!(number("n=0xFf", 255, 255), Some(255));
    for text in ["n=0x", "n=+1", "n=0x+1", "n=1k", "n=1_000", "n=0b1", "n=4294967296"] {
        assert_eq!(number(text, 0, u64::from(u32::MAX)), None, "{text}");
    }
    assert_eq!(number("n=5", 6, 9), None);
    assert_eq!(number("n=010", 0, 99), Some(10));
}

#[test]
fn a_line_too_long_is_refused() {
    let longest = [b'x'; MAX_COMMAND_LINE];
    assert_eq!(CommandLine::new(&longest).expect("just fits").as_bytes(), longest);
    let error = CommandLine::new(&[b'x'; MAX_COMMAND_LINE + 1]).unwrap_err();
    assert_eq!(error, LongCommandLine);
    assert_eq!(error.to_string(), "the command line has more than 2048 bytes; shorten it");
    assert_eq!(line("a=\"b\"").to_string(), "\"a=\\\"b\\\"\"");
}

proptest! {
    #[test]
    fn any_bytes_are_split_like_the_model(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let line = CommandLine::new(&bytes).expect("short enough");
        prop_assert_eq!(line.as_bytes(), &bytes);
        let model = bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        for (word, expected) in line.words().zip(model.clone()) {
            match word {
                Ok(word) => {
                    prop_assert_eq!(word.text.as_bytes(), expected);
                    prop_assert_eq!([word.key, word.value].join("="), word.text);
                    prop_assert!(!word.key.is_empty() && !word.value.is_empty() && !word.key.contains('='));
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
        prop_assert_eq!(line.words().count(), model.count());
        prop_assert_eq!(line.settings().count(), line.words().count());
    }

    #[test]
    fn settings_never_panic(
        words in proptest::collection::vec(
            "(bench|cpus|nodes|seed|accel|samples|policy|log|exit|scenario|x)?=?[a-z0-9,=x+-]{0,22}",
            0..12,
        ),
    ) {
        let text = words.join(" ");
        let mut keys = Vec::new();
        let line = CommandLine::new(text.as_bytes()).expect("short enough");
        for setting in line.settings() {
            match setting {
                Ok(Setting::Bench(list)) => prop_assert!(names(&list).iter().all(|name| !name.is_empty())),
                Ok(_) => {}
                Err(error) => prop_assert!(error.to_string().contains("on the command line")),
            }
        }
        for (word, setting) in line.words().zip(line.settings()) {
            if let Ok(word) = word {
                let repeated = keys.contains(&word.key);
                prop_assert_eq!(repeated, matches!(setting, Err(CommandLineError::Repeated(_))));
                keys.push(word.key);
            }
        }
    }
}
