//! Addresses of the guest, named: function, file and line.

use std::path::PathBuf;

use addr2line::Loader;
use object::{Object as _, ObjectSegment as _};

use crate::images::Binary;

/// The least address of the kernel's half.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;

/// The name of the image that runs in the kernel's half.
const KERNEL: &str = "cpudriver";

/// The binaries of one build, read when an address in them is asked for.
#[derive(Debug, Default)]
pub struct Symbols {
    images: Vec<Image>,
}

struct Image {
    name: String,
    path: PathBuf,
    /// Loaded when first needed; `Some(None)` where that failed.
    loader: Option<Option<Loader>>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("name", &self.name).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Symbols {
    /// The symbols of `binaries`.
    #[must_use]
    pub fn of(binaries: &[Binary]) -> Self {
        let image = |b: &Binary| Image { name: b.name.clone(), path: b.path.clone(), loader: None };
        Self { images: binaries.iter().map(image).collect() }
    }

    /// Which image the code at `address` belongs to. All domains lie at the same addresses, so `code`, what the
    /// guest's memory holds there, decides; `None` where no image or more than one has these bytes.
    #[must_use]
    pub fn image_at(&self, address: u64, code: &[u8]) -> Option<usize> {
        if address >= KERNEL_HALF {
            return self.images.iter().position(|image| image.name == KERNEL);
        }
        if code.is_empty() {
            return None;
        }
        let mut matching = (0..self.images.len())
            .filter(|&i| self.images[i].name != KERNEL && self.images[i].holds(address, code));
        let first = matching.next()?;
        matching.next().is_none().then_some(first)
    }

    /// The kernel's image.
    #[must_use]
    pub fn kernel(&self) -> Option<usize> {
        self.images.iter().position(|image| image.name == KERNEL)
    }

    /// `address` in that image, as `image: function (file:line)`; where functions were inlined there, the innermost
    /// first.
    pub fn describe(&mut self, image: usize, address: u64) -> Vec<String> {
        let Image { name, path, loader } = &mut self.images[image];
        let loader = loader.get_or_insert_with(|| Loader::new(path).ok());
        let Some(loader) = loader else { return vec![format!("{name}: no symbols")] };
        let mut parts = Vec::new();
        if let Ok(mut frames) = loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let Some(function) = frame.function.and_then(|f| f.raw_name().ok().map(|n| demangle(&n)))
                else {
                    continue;
                };
                let place = frame.location.map(|at| place(at.file, at.line)).unwrap_or_default();
                parts.push(format!("{function}{place}"));
            }
        }
        if parts.is_empty() {
            let place = match loader.find_location(address) {
                Ok(Some(at)) => place(at.file, at.line),
                _ => String::new(),
            };
            parts.push(match loader.find_symbol(address) {
                Some(symbol) => format!("{}{place}", demangle(symbol)),
                None => format!("?{place}"),
            });
        }
        parts.iter().map(|part| format!("{name}: {part}")).collect()
    }
}

impl Image {
    /// Whether the file has these bytes at that address.
    fn holds(&self, address: u64, code: &[u8]) -> bool {
        let Ok(data) = std::fs::read(&self.path) else { return false };
        let Ok(file) = object::File::parse(&*data) else { return false };
        file.segments().any(|segment| {
            let at = address.checked_sub(segment.address()).and_then(|at| usize::try_from(at).ok());
            let bytes = at.and_then(|at| segment.data().ok()?.get(at..)?.get(..code.len()));
            bytes == Some(code)
        })
    }
}

fn demangle(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// ` (file:line)`, with the file's last two components: enough to find it.
fn place(file: Option<&str>, line: Option<u32>) -> String {
    let Some(file) = file else { return String::new() };
    let from = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    match line {
        Some(line) => format!(" ({}:{line})", &file[from..]),
        None => format!(" ({})", &file[from..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_two_components() {
        assert_eq!(place(Some("/a/b/src/main.rs"), Some(7)), " (src/main.rs:7)");
        assert_eq!(place(Some("main.rs"), None), " (main.rs)");
        assert_eq!(place(None, Some(7)), "");
    }

    /// This test binary is an image like any other.
    #[test]
    fn functions_and_code_are_found_in_an_image() {
        let path = std::env::current_exe().unwrap();
        let data = std::fs::read(&path).unwrap();
        let file = object::File::parse(&*data).unwrap();
        use object::ObjectSymbol as _;
        // Not an instance of a generic function that only has our name in its own.
        let this = concat!(module_path!(), "::functions_and_code_are_found_in_an_image");
        let symbol = file.symbols().find(|s| s.name().is_ok_and(|name| demangle(name) == this)).unwrap();
        let mut symbols = Symbols::of(&[Binary { name: "test".into(), path }]);
        let described = symbols.describe(0, symbol.address()).join("\n");
        assert!(described.starts_with("test: "), "{described}");
        assert!(described.contains("functions_and_code_are_found_in_an_image"), "{described}");
        assert!(described.contains("(src/symbols.rs:"), "{described}");

        let segment = file.segments().find(|s| s.data().is_ok_and(|d| d.len() > 256)).unwrap();
        let code = &segment.data().unwrap()[100..132];
        assert_eq!(symbols.image_at(segment.address() + 100, code), Some(0));
        let other: Vec<u8> = code.iter().map(|b| !b).collect();
        assert_eq!(symbols.image_at(segment.address() + 100, &other), None);
        assert_eq!(symbols.image_at(0xffff_ffff_8020_0000, code), None, "no image is the kernel's");
    }
}
