//! Models in several files: `name-00001-of-00003.gguf` and so on, as `llama-gguf-split` writes them. The first holds
//! the metadata, each its own tensors.

use std::path::{Path, PathBuf};

use super::super::ModelError;
use super::super::weights::Weights;
use super::{Gguf, Header, Inner, malformed, read_header, shown};

/// Files of one model; the largest open ones have some 30, and every one stays open while a model loads.
pub const MAX_PARTS: usize = 256;
const DIGITS: usize = 5;
const EXTENSION: &str = ".gguf";

/// What the name of one file of a split model says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartName<'a> {
    /// What all its files begin with.
    pub stem: &'a str,
    /// Which it is, from 1.
    pub number: usize,
    /// How many there are.
    pub count: usize,
}

impl<'a> PartName<'a> {
    /// Reads a file name; `None` where it is not of that form.
    pub fn parse(name: &'a str) -> Option<Self> {
        let rest = name.strip_suffix(EXTENSION)?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| -> Option<usize> {
            (text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
        };
        let (number, count) = (digits(number)?, digits(count)?);
        (!stem.is_empty() && (1..=count).contains(&number)).then_some(Self { stem, number, count })
    }

    /// The name of the `number`-th file of the same model.
    pub fn file_name(&self, number: usize) -> String {
        format!("{}-{number:0DIGITS$}-of-{:0DIGITS$}{EXTENSION}", self.stem, self.count)
    }
}

/// All files of the model that `path` is the first or only one of, in order, whether they are there or not.
pub fn part_paths(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match PartName::parse(&name).filter(|part| part.number == 1 && part.count <= MAX_PARTS) {
        Some(part) => (1..=part.count).map(|n| path.with_file_name(part.file_name(n))).collect(),
        None => vec![path.to_owned()],
    }
}

/// Opens the files behind the first one, whose own header says that there are more.
pub(super) fn open_parts(path: &Path, first: Inner) -> Result<Inner, ModelError> {
    let count = split_number(&first.header, &first.header_bytes, "split.count")?;
    let Some(count) = count.filter(|&count| count > 1) else { return Ok(first) };
    let in_limit = usize::try_from(count).ok().filter(|&count| count <= MAX_PARTS);
    let Some(count) = in_limit else {
        return Err(malformed(format!("split.count: {count}, the limit is {MAX_PARTS}")));
    };
    let name = first.name.clone();
    let Some(part) = PartName::parse(&name).filter(|part| part.count == count) else {
        return Err(malformed(format!(
            "{}: split.count is {count}, so its name must end in -00001-of-{count:05}.gguf, as its maker named it",
            shown(&name)
        )));
    };
    let number = split_number(&first.header, &first.header_bytes, "split.no")?;
    if number != Some(0) || part.number != 1 {
        return Err(malformed(format!("a part of a split model; name its first, {}", part.file_name(1))));
    }
    let stated = split_number(&first.header, &first.header_bytes, "split.tensors.count")?;
    let mut whole = first;
    for number in 2..=count {
        let path = path.with_file_name(part.file_name(number));
        take_in(&mut whole, &path, number, count)?;
    }
    let found = whole.header.tensors.len() as u64;
    match stated {
        Some(stated) if stated != found => Err(malformed(format!(
            "split.tensors.count: {stated}, but its {count} files hold {found} tensors together"
        ))),
        _ => Ok(whole),
    }
}

fn take_in(whole: &mut Inner, path: &Path, number: usize, count: usize) -> Result<(), ModelError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let in_part = |e: ModelError| match e {
        ModelError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => malformed(format!(
            "{} is missing: part {number} of {count}, which must lie beside the first",
            shown(&name)
        )),
        ModelError::Malformed(text) => malformed(format!("{}: {text}", shown(&name))),
        other => other,
    };
    let weights = Weights::open(path).map_err(in_part)?;
    let (header, bytes) = read_header(&weights).map_err(in_part)?;
    for (key, wanted) in [("split.no", number - 1), ("split.count", count)] {
        let found = split_number(&header, &bytes, key).map_err(in_part)?;
        if found != Some(wanted as u64) {
            let found = found.map_or("missing".to_owned(), |n| n.to_string());
            return Err(in_part(malformed(format!("{key} is {found}, it must be {wanted}"))));
        }
    }
    let part = whole.parts.len();
    for mut tensor in header.tensors {
        tensor.part = part;
        let i = whole.header.tensors.len();
        if i >= super::MAX_TENSORS {
            return Err(in_part(malformed(format!("more than {} tensors together", super::MAX_TENSORS))));
        }
        if whole.header.tensor_by_name.insert(tensor.name.clone(), i).is_some() {
            return Err(in_part(malformed(format!("tensor {} stands in two files", shown(&tensor.name)))));
        }
        whole.header.tensors.push(tensor);
    }
    whole.parts.push(weights);
    Ok(())
}

/// A number about the split, if the header has it.
fn split_number(header: &Header, bytes: &[u8], key: &str) -> Result<Option<u64>, ModelError> {
    let Some(&i) = header.metadata_by_key.get(key) else { return Ok(None) };
    let value = header.metadata[i].1.value(bytes);
    Gguf::integer(value).map(Some).ok_or_else(|| malformed(format!("{key}: {value}, not a count")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_read_and_made() {
        let part = PartName::parse("a-b-00002-of-00003.gguf").unwrap();
        assert_eq!(part, PartName { stem: "a-b", number: 2, count: 3 });
        assert_eq!(part.file_name(1), "a-b-00001-of-00003.gguf");
        for name in [
            "a.gguf",
            "a-1-of-3.gguf",
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "-00001-of-00002.gguf",
        ] {
            assert_eq!(PartName::parse(name), None, "{name}");
        }
        assert_eq!(part_paths(Path::new("/m/a-00001-of-00002.gguf")).len(), 2);
        assert_eq!(part_paths(Path::new("/m/a-00002-of-00002.gguf")).len(), 1);
    }
}
