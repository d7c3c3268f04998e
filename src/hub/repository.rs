//! What a repository on the hub holds, and which of its files are the model that somebody means.

use serde::Deserialize;

use super::HubError;
use super::folder::is_model_name;
use crate::model::gguf::split::PartName;

/// Quantizations from the one taken first: near four bits the loss is small and the speed is twice that of eight; then
/// upwards, then downwards. Types that nothing here computes are left out.
const PREFERRED: &[&str] = &[
    "Q4_K_M", "Q4_K_S", "Q4_K_XL", "Q4_K_L", "Q4_0", "Q5_K_M", "Q5_K_S", "Q4_1", "Q5_0", "Q5_1", "Q6_K",
    "Q8_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "BF16", "F16", "F32",
];
/// Quantizations that are recognised in a file's name, longer ones first where one begins with another.
const OTHERS: &[&str] = &[
    "Q2_K_S", "Q2_K_L", "Q2_K_XL", "Q3_K_XL", "Q5_K_XL", "Q5_K_L", "Q6_K_L", "Q6_K_XL", "Q8_K_XL", "IQ1_S",
    "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_XS",
    "IQ4_NL", "MXFP4", "TQ1_0", "TQ2_0",
];
/// Longest `OWNER/NAME`: the hub allows 96 for each.
const MAX_REPO_LEN: usize = 200;

/// What is asked for: `OWNER/NAME` and a quantization or file name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) repo: String,
    pub(super) quant: Option<String>,
}

impl Wanted {
    /// Reads `OWNER/NAME[:QUANT]`, also behind the hub's address.
    pub(super) fn parse(raw: &str) -> Result<Self, HubError> {
        let short = ["https://huggingface.co/", "huggingface.co/", "hf.co/"]
            .iter()
            .find_map(|prefix| raw.strip_prefix(prefix))
            .unwrap_or(raw);
        let (repo, quant) = match short.split_once(':') {
            Some((repo, quant)) => (repo, Some(quant)),
            None => (short, None),
        };
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.contains("..")
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let parts: Vec<&str> = repo.split('/').collect();
        let quant_is_one = quant.is_none_or(|q| is_part(q.strip_suffix(".gguf").unwrap_or(q)));
        if parts.len() != 2
            || !parts.iter().all(|part| is_part(part))
            || !quant_is_one
            || repo.len() > MAX_REPO_LEN
        {
            return Err(HubError::Pull {
                what: format!("{raw:?}"),
                problem: "neither a repository, OWNER/NAME or OWNER/NAME:QUANT, nor a name that `mommygpt doctor` lists"
                    .into(),
            });
        }
        Ok(Self { repo: repo.to_owned(), quant: quant.map(str::to_owned) })
    }
}

/// A file of a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RemoteFile {
    /// Its path in the repository.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// As the hub states it.
    pub(super) sha256: Option<String>,
}

impl RemoteFile {
    /// The last part of its path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// A repository at one commit.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    pub(super) commit: String,
    pub(super) licence: Option<String>,
    pub(super) files: Vec<RemoteFile>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Card {
    #[serde(default)]
    license: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Repository {
    /// Reads the hub's answer to `/api/models/OWNER/NAME/revision/main?blobs=true`.
    pub(super) fn from_json(json: &str) -> Result<Self, String> {
        let info: Info =
            serde_json::from_str(json).map_err(|e| format!("the hub's answer is no listing: {e}"))?;
        if !is_hex(&info.sha, 40) {
            return Err("the hub's answer names no commit".into());
        }
        let files = info.siblings.into_iter().map(|file| RemoteFile {
            bytes: file.lfs.as_ref().map_or(file.size.unwrap_or(0), |lfs| lfs.size),
            sha256: file.lfs.map(|lfs| lfs.sha256.to_ascii_lowercase()).filter(|sha| is_hex(sha, 64)),
            path: file.rfilename,
        });
        let licence = info.card.and_then(|card| card.license).and_then(|l| l.as_str().map(str::to_owned));
        Ok(Self { commit: info.sha, licence, files: files.filter(is_model).collect() })
    }

    /// The files of one model: that of the quantization asked for, else the best that there is.
    pub(super) fn choose(&self, wanted: &Wanted) -> Result<Vec<RemoteFile>, HubError> {
        let refuse = |problem: String| Err(HubError::Pull { what: wanted.repo.clone(), problem });
        let models = self.models();
        if models.is_empty() {
            return refuse("no GGUF files in this repository; look for one whose name ends in -GGUF".into());
        }
        let found: Vec<&Vec<RemoteFile>> = if let Some(quant) = &wanted.quant {
            models.iter().filter(|files| is_called(files, quant)).collect()
        } else {
            let named = |quant: &&str| {
                let found = models.iter().filter(|files| quant_of(&files[0]).as_deref() == Some(*quant));
                Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty())
            };
            PREFERRED.iter().find_map(named).unwrap_or_else(|| models.iter().collect())
        };
        match found[..] {
            [one] => complete(one, wanted),
            [] => {
                let quant = wanted.quant.as_deref().unwrap_or_default();
                refuse(format!("no model {quant}; there are {}", listed(models.iter())))
            }
            _ => refuse(format!("say which: {}", listed(found.into_iter()))),
        }
    }

    /// The files grouped into models, each in the order of its parts.
    fn models(&self) -> Vec<Vec<RemoteFile>> {
        let mut models: Vec<Vec<RemoteFile>> = Vec::new();
        for file in &self.files {
            match PartName::parse(file.name()) {
                None => models.push(vec![file.clone()]),
                Some(part) if part.number == 1 => {
                    let folder = file.path.strip_suffix(file.name()).unwrap_or_default();
                    let paths = (1..=part.count).map(|n| format!("{folder}{}", part.file_name(n)));
                    let of_path = |path: String| self.files.iter().find(|f| f.path == path).cloned();
                    models.push(paths.filter_map(of_path).collect());
                }
                Some(_) => {}
            }
        }
        models
    }
}

fn complete(files: &[RemoteFile], wanted: &Wanted) -> Result<Vec<RemoteFile>, HubError> {
    let refuse = |problem: String| Err(HubError::Pull { what: wanted.repo.clone(), problem });
    let name = files[0].name();
    let n_wanted = PartName::parse(name).map_or(1, |part| part.count);
    if files.len() != n_wanted {
        return refuse(format!("{name}: the repository has {} of its {n_wanted} parts", files.len()));
    }
    if let Some(file) = files.iter().find(|file| file.sha256.is_none() || file.bytes == 0) {
        return refuse(format!("{}: the hub states no SHA-256 for it, so it cannot be checked", file.name()));
    }
    Ok(files.to_vec())
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A GGUF file with weights: not a projector for pictures, not the data of a quantizer.
fn is_model(file: &RemoteFile) -> bool {
    let name = file.name().to_ascii_lowercase();
    is_model_name(file.name())
        && !name.starts_with("mmproj")
        && !name.contains("imatrix")
        && !file.path.split('/').any(|part| part.is_empty() || part == "." || part == "..")
}

/// The quantization in a file's name, or in that of its folder.
pub(super) fn quant_of(file: &RemoteFile) -> Option<String> {
    let stem = file.name().strip_suffix(".gguf")?;
    let stem = PartName::parse(file.name()).map_or(stem, |part| part.stem);
    let folder = file.path.strip_suffix(file.name()).unwrap_or_default();
    [stem, folder].into_iter().find_map(|text| {
        let words = text.rsplit(['-', '.', '/']).map(str::to_ascii_uppercase);
        let words: Vec<String> = words.collect();
        words.into_iter().find(|word| PREFERRED.contains(&word.as_str()) || OTHERS.contains(&word.as_str()))
    })
}

fn is_called(files: &[RemoteFile], wanted: &str) -> bool {
    let name = files[0].name();
    name.eq_ignore_ascii_case(wanted)
        || quant_of(&files[0]).is_some_and(|quant| {
            // `UD-Q4_K_XL` and the like: what people copy from a page has its prefix.
            quant.eq_ignore_ascii_case(wanted.rsplit('-').next().unwrap_or(wanted))
        })
}

fn listed<'a>(models: impl Iterator<Item = &'a Vec<RemoteFile>>) -> String {
    let names: Vec<String> = models
        .filter_map(|files| files.first())
        .map(|file| match quant_of(file) {
            Some(quant) => format!("{quant} ({})", file.name()),
            None => file.name().to_owned(),
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(paths: &[&str]) -> Repository {
        let siblings: Vec<_> = paths
            .iter()
            .map(|path| {
                serde_json::json!({"rfilename": path, "size": 9, "lfs": {"sha256": "a".repeat(64), "size": 9}})
            })
            .collect();
        let json = serde_json::json!({"sha": "0".repeat(40), "siblings": siblings,
            "cardData": {"license": "apache-2.0"}});
        Repository::from_json(&json.to_string()).unwrap()
    }

    fn chosen(paths: &[&str], wanted: &str) -> Result<String, String> {
        let files = repository(paths).choose(&Wanted::parse(wanted).unwrap());
        files.map(|files| files[0].path.clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn repositories_are_named_as_on_the_hub() {
        let wanted = Wanted::parse("Qwen/Qwen3-0.6B-GGUF:Q8_0").unwrap();
        assert_eq!(wanted, Wanted { repo: "Qwen/Qwen3-0.6B-GGUF".into(), quant: Some("Q8_0".into()) });
        assert_eq!(Wanted::parse("hf.co/a/b").unwrap().repo, "a/b");
        for raw in [
            "",
            "a",
            "a/b/c",
            "../b",
            "a/..",
            "a/b:",
            "a/b:../x",
            "a/b c",
            "/a/b",
            "http://x/a/b",
            "a/-b",
            "a/b%2f",
        ] {
            assert!(Wanted::parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn four_bits_are_taken_unless_somebody_asks() {
        let usual = [
            "README.md",
            "m-Q8_0.gguf",
            "m-Q4_K_M.gguf",
            "m-IQ4_XS.gguf",
            "mmproj-F16.gguf",
            "m.imatrix.gguf",
        ];
        assert_eq!(chosen(&usual, "a/b").unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(chosen(&usual, "a/b:q8_0").unwrap(), "m-Q8_0.gguf");
        assert_eq!(chosen(&usual, "a/b:m-IQ4_XS.gguf").unwrap(), "m-IQ4_XS.gguf");
        assert_eq!(chosen(&["m.q6_k.gguf", "m.fp16.gguf", "m.Q2_K.gguf"], "a/b").unwrap(), "m.q6_k.gguf");
        assert_eq!(chosen(&["only.gguf"], "a/b").unwrap(), "only.gguf");
        let text = chosen(&usual, "a/b:Q5_K_M").unwrap_err();
        assert!(text.contains("Q8_0 (m-Q8_0.gguf)") && !text.contains("mmproj"), "{text}");
        let text = chosen(&["x-Q4_K_M.gguf", "y-Q4_K_M.gguf"], "a/b").unwrap_err();
        assert!(text.contains("say which") && text.contains("y-Q4_K_M.gguf"), "{text}");
        assert!(chosen(&["model.safetensors"], "a/b").unwrap_err().contains("no GGUF files"));
    }

    #[test]
    fn models_in_several_files_come_whole_or_not_at_all() {
        let paths =
            ["Q4_K_M/m-00001-of-00002.gguf", "Q8_0/m-00001-of-00002.gguf", "Q4_K_M/m-00002-of-00002.gguf"];
        let files = repository(&paths).choose(&Wanted::parse("a/b").unwrap()).unwrap();
        let paths_chosen: Vec<&str> = files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths_chosen, [paths[0], paths[2]]);
        assert!(chosen(&paths, "a/b:Q8_0").unwrap_err().contains("1 of its 2 parts"));
    }
}
