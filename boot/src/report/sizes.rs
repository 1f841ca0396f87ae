//! Results of many sizes: one row for each size, one column for each way of moving the bytes.

use comfy_table::CellAlignment;
use results::host::Record;

use super::{Cells, homes, number, path};

/// The count of the bytes that one operation copied.
pub(crate) const COPIED: &str = "bytes_copied";

/// Ways beside each other, as many columns as there are.
pub(super) fn table(records: &[&Record]) -> String {
    let mut ways: Vec<&str> = Vec::new();
    let mut rows: Vec<Vec<&Record>> = Vec::new();
    for &record in records {
        if !ways.contains(&record.metric.as_str()) {
            ways.push(&record.metric);
        }
        match rows.iter_mut().find(|row| same_row(row[0], record)) {
            Some(row) => row.push(record),
            None => rows.push(vec![record]),
        }
    }
    let mut head = vec![
        ("benchmark".to_owned(), CellAlignment::Left),
        ("cores".to_owned(), CellAlignment::Left),
        ("policy".to_owned(), CellAlignment::Left),
        ("homes".to_owned(), CellAlignment::Left),
        ("size".to_owned(), CellAlignment::Right),
    ];
    for way in &ways {
        head.push(((*way).to_owned(), CellAlignment::Right));
        head.push(("copied".to_owned(), CellAlignment::Right));
    }
    let mut cells = Cells::new(&head);
    for row in rows {
        let first = row[0];
        let mut line = vec![
            Some(first.bench.clone()),
            path(first),
            first.policy.clone(),
            // Only some ways have a pool; its home stands for the row.
            row.iter().max_by_key(|r| r.homes.as_ref().map_or(0, |h| h.data.len())).and_then(|r| homes(r)),
            first.size.map(bytes),
        ];
        for way in &ways {
            let record = row.iter().find(|record| record.metric == *way);
            line.push(record.and_then(|record| Some(number(record.distribution?.p50))));
            line.push(record.and_then(|record| record.counts.get(COPIED)).map(u64::to_string));
        }
        cells.push(line);
    }
    cells.finish()
}

/// Whether two records differ in their way only.
fn same_row(a: &Record, b: &Record) -> bool {
    let key = |r: &Record| (r.bench.clone(), r.src, r.dst, r.policy.clone(), r.size);
    key(a) == key(b)
}

/// `4 KiB`, `1 MiB`; bytes where it is neither.
pub(crate) fn bytes(size: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match size {
        size if size >= MIB && size.is_multiple_of(MIB) => format!("{} MiB", size / MIB),
        size if size >= KIB && size.is_multiple_of(KIB) => format!("{} KiB", size / KIB),
        size => size.to_string(),
    }
}
