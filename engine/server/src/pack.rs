//! A pack: a folder of `.sql` files, executed in the order of their names.
//!
//! `tidegate.toml`, beside them, is optional:
//!
//! ```toml
//! needs = ["../bank"]              # packs that are loaded before this one
//! [variables]
//! LOG = "sshd.log"                 # what ${LOG} in the files stands for
//! ```
//!
//! Variables  the environment's value counts more than the file's
//! Paths      of files that sources read are relative to this pack's folder
//! Errors     no folder, no `.sql` file, a `tidegate.toml` that is not understood,
//!            packs that need one another in a circle

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidegate_types::disk;
use tidegate_types::error::{Error, Result};

/// A file's name, for messages, and its text.
pub type File = (String, String);

#[derive(Debug)]
pub struct Pack {
    pub folder: PathBuf,
    pub files: Vec<File>,
    pub variables: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    needs: Vec<PathBuf>,
    variables: BTreeMap<String, String>,
}

impl Pack {
    /// Reads the pack at `path`: a folder, or one `.sql` file.
    pub fn load(path: &Path) -> Result<Self> {
        let mut pack = Self { folder: folder_of(path), files: Vec::new(), variables: BTreeMap::new() };
        pack.add(path, &mut Vec::new(), &mut BTreeSet::new())?;
        let used = pack.files.iter().flat_map(|(_, text)| variables_in(text));
        let named: BTreeSet<String> = used.map(String::from).chain(pack.variables.keys().cloned()).collect();
        let environment = named.into_iter().filter_map(|name| std::env::var(&name).ok().map(|value| (name, value)));
        pack.variables.extend(environment);
        Ok(pack)
    }

    /// `${NAME}`s in the files that have no value.
    pub fn unset(&self) -> BTreeSet<String> {
        let used = self.files.iter().flat_map(|(_, text)| variables_in(text));
        used.filter(|name| !self.variables.contains_key(*name)).map(String::from).collect()
    }

    /// `above`: the packs that are waiting for this one. `done`: those read.
    fn add(&mut self, path: &Path, above: &mut Vec<PathBuf>, done: &mut BTreeSet<PathBuf>) -> Result<()> {
        let real = path.canonicalize().map_err(|error| {
            Error::user(format!("pack {} cannot be read: {error}", path.display())).hint("name a folder that holds .sql files")
        })?;
        if above.contains(&real) {
            return Err(Error::user(format!("pack {} needs itself", path.display())).hint("cut the circle in \"needs\" of tidegate.toml"));
        }
        if done.contains(&real) {
            return Ok(());
        }
        let folder = folder_of(path);
        let settings = settings(&folder)?;
        above.push(real.clone());
        for needed in &settings.needs {
            self.add(&folder.join(needed), above, done)?;
        }
        above.pop();
        self.files.extend(sql_files(path)?);
        self.variables.extend(settings.variables);
        done.insert(real);
        Ok(())
    }
}

/// A pack may be one file.
fn folder_of(path: &Path) -> PathBuf {
    let folder = if path.is_file() { disk::folder_of(path) } else { path };
    folder.to_path_buf()
}

fn settings(folder: &Path) -> Result<Settings> {
    let path = folder.join("tidegate.toml");
    if !path.exists() {
        return Ok(Settings::default());
    }
    let place = path.display().to_string();
    toml::from_str(&read(&path)?).map_err(|error| {
        Error::user(error.message().to_string()).hint("it may hold needs = [\"../pack\"] and [variables] NAME = \"value\"").at(&place, 0, 0)
    })
}

/// The folder's `.sql` files by name, or the one file.
fn sql_files(path: &Path) -> Result<Vec<File>> {
    let mut paths = if path.is_file() { vec![path.to_path_buf()] } else { entries(path)? };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    if paths.is_empty() {
        return Err(Error::user(format!("pack {} holds no .sql file", path.display())).hint("name a folder that holds .sql files"));
    }
    paths.iter().map(|path| Ok((path.display().to_string(), read(path)?))).collect()
}

/// What is in a folder, by name.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| Error::user(format!("folder {} cannot be read: {error}", folder.display()));
    let found = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> = found.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::user(format!("{} cannot be read: {error}", path.display())))
}

/// The names in `${NAME}`.
fn variables_in(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("${").skip(1);
    after
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_by_name_and_needed_packs_first() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("base/10_a.sql", "A ${LOG}");
        write("top/20_c.sql", "C");
        write("top/10_b.sql", "B ${TIDEGATE_NOT_SET}");
        write("top/tidegate.toml", "needs = [\"../base\"]\n[variables]\nLOG = \"x\"\n");
        let pack = Pack::load(&root.path().join("top")).unwrap();
        let texts: Vec<&str> = pack.files.iter().map(|(_, text)| &text[..1]).collect();
        assert_eq!(texts, ["A", "B", "C"]);
        assert_eq!(pack.variables["LOG"], "x");
        assert_eq!(Vec::from_iter(pack.unset()), ["TIDEGATE_NOT_SET"]);

        write("base/tidegate.toml", "needs = [\"../top\"]\n");
        assert!(Pack::load(&root.path().join("top")).unwrap_err().message.ends_with("needs itself"));
        write("base/tidegate.toml", "wants = 1\n");
        assert!(Pack::load(&root.path().join("base")).unwrap_err().message.contains("unknown field"));
        assert!(Pack::load(&root.path().join("none")).unwrap_err().message.contains("cannot be read"));
    }
}
