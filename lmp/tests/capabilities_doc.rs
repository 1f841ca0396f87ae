//! The tables of `doc/capabilities.md` are those of the source. After a change of the source,
//! `KILLIFISH_WRITE_DOC=1 cargo test -p lmp --test capabilities_doc` writes them anew.

use lmp::invocation::Op;
use lmp::objects::{CTE_SIZE, Extent, Space, Use};
use lmp::{ObjType, Rights};
use std::fmt::Write;

const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../doc/capabilities.md");
const VARIABLE: &str = "KILLIFISH_WRITE_DOC";

/// Plain text as the text of a table's cell.
fn cell(text: &str) -> String {
    text.trim().replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

fn size(ty: ObjType) -> String {
    let memory = ty.space() == Space::Memory;
    match ty.extent() {
        Extent::Fixed(n) if n >= 1 << 20 => format!("{} MiB", n >> 20),
        Extent::Fixed(n) if n >= 1 << 10 => format!("{} KiB", n >> 10),
        Extent::Fixed(n) => format!("{n} bytes"),
        Extent::Multiple(n) if memory && ty == ObjType::L1CNode => {
            format!("pages, {} slots each", n / CTE_SIZE)
        }
        Extent::Multiple(_) if memory => "pages".into(),
        Extent::Multiple(_) => "a range".into(),
        Extent::Unsized => "–".into(),
    }
}

fn made_from(ty: ObjType) -> String {
    let sources: Vec<_> = ty.sources().iter().map(|s| s.name()).collect();
    if sources.is_empty() { "–".into() } else { sources.join(", ") }
}

fn memory(ty: ObjType) -> &'static str {
    match ty.memory() {
        Use::Nothing => "–",
        Use::Source => "retyped",
        Use::Mappable => "mapped",
        Use::Kernel => "the kernel's",
    }
}

fn rights(ty: ObjType) -> String {
    let names = ["R", "W", "X", "G"];
    let texts = ty.rights_text();
    let used: Vec<_> =
        names.iter().zip(texts).filter(|(_, t)| !t.is_empty()).map(|(n, t)| format!("{n}: {t}")).collect();
    if used.is_empty() { "–".into() } else { used.join("; ") }
}

fn types() -> String {
    let mut out = String::from(
        "| code | type | what it is | size | made from | per retype | memory is | copies have the same | rights |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for ty in ObjType::ALL {
        let many = match ty.per_retype() {
            0 => "–".into(),
            n => format!("1–{n}"),
        };
        let row = [
            (*ty as u8).to_string(),
            cell(ty.name()),
            cell(ty.summary()),
            size(*ty),
            made_from(*ty),
            many,
            memory(*ty).into(),
            ty.equality().text().into(),
            rights(*ty),
        ];
        writeln!(out, "| {} |", row.join(" | ")).unwrap();
    }
    out
}

fn operations() -> String {
    let mut out = String::from("| number | operation | invoked on | what it does |\n|---|---|---|---|\n");
    for op in Op::ALL {
        let (on, what) = op.summary().split_once(": ").unwrap();
        writeln!(out, "| {} | `{op:?}` | {} | {} |", *op as u16, cell(on), cell(what)).unwrap();
    }
    out
}

/// `doc` with `table` between the markers called `name`.
fn with_table(doc: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let start = doc.find(&begin).expect("a marker for the begin") + begin.len();
    let stop = start + doc[start..].find(&end).expect("a marker for the end");
    format!("{}{table}{}", &doc[..start], &doc[stop..])
}

#[test]
fn the_tables_in_the_document_are_those_of_the_source() {
    let doc = std::fs::read_to_string(DOC).expect("doc/capabilities.md");
    let right = with_table(&with_table(&doc, "types", &types()), "operations", &operations());
    if std::env::var_os(VARIABLE).is_some() {
        std::fs::write(DOC, &right).expect("writing doc/capabilities.md");
    } else if doc != right {
        let command = format!("{VARIABLE}=1 cargo test -p lmp --test capabilities_doc");
        panic!(
            "doc/capabilities.md is not as the source says. `{command}` makes it so:\n{}{}",
            types(),
            operations()
        );
    }
}

#[test]
fn every_right_has_its_text() {
    assert_eq!(Rights::all().iter().count(), ObjType::Frame.rights_text().len());
}
