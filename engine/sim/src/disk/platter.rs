//! What is on the disk: what readers see, what a power cut would leave of it, and what goes wrong next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tidegate_types::disk::Room;

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process is gone; what it wrote is not.
    Kill,
    /// What was not synced is left to chance.
    PowerCut,
}

/// What happens to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Error,
    /// No room: waits for an operation that takes some.
    Full,
    /// It is the last one of its boot, done or not.
    Crash(Crash),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Folder,
    File(usize),
}

/// A change of names that its folder was not synced after.
#[derive(Debug, Clone)]
enum Turn {
    Link(PathBuf, Entry),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Entry),
}

impl Turn {
    fn folder(&self) -> &Path {
        let (Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _)) = self;
        parent(path)
    }
}

/// A file's bytes.
#[derive(Clone, Default)]
struct Node {
    /// As readers see them.
    seen: Vec<u8>,
    /// As they are for good.
    kept: Vec<u8>,
    /// Written and not synced.
    unsynced: Vec<Range<usize>>,
}

#[derive(Clone)]
pub struct Platter {
    nodes: Vec<Node>,
    /// As everyone sees them.
    names: BTreeMap<PathBuf, Entry>,
    names_kept: BTreeMap<PathBuf, Entry>,
    turns: Vec<Turn>,
    locks: BTreeSet<PathBuf>,
    /// Beyond it writes are refused, until that happened so often.
    capacity: u64,
    refusals_left: u32,
    faults: BTreeMap<u64, Fault>,
    crashed: Option<Crash>,
    random: StdRng,
    pub operations: u64,
    pub trace: blake3::Hasher,
    /// A fault has happened in this boot.
    pub is_faulted: bool,
    /// No file can be made.
    pub is_crowded: bool,
}

const CAPACITY: u64 = 1 << 40;

impl Platter {
    pub fn seeded(seed: u64) -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Entry::Folder)]);
        Self {
            nodes: Vec::new(),
            names: root.clone(),
            names_kept: root,
            turns: Vec::new(),
            locks: BTreeSet::new(),
            capacity: CAPACITY,
            refusals_left: 0,
            faults: BTreeMap::new(),
            crashed: None,
            random: StdRng::seed_from_u64(seed),
            operations: 0,
            trace: blake3::Hasher::new(),
            is_faulted: false,
            is_crowded: false,
        }
    }

    pub fn count(&mut self, what: &str, path: &Path, length: usize) {
        self.operations += 1;
        self.trace.update(format!("{what} {} {length}\n", path.display()).as_bytes());
    }

    pub fn fail_at(&mut self, n: u64, fault: Fault) {
        self.faults.insert(self.operations + n, fault);
    }

    pub fn calm(&mut self) {
        self.faults.clear();
        (self.capacity, self.refusals_left, self.is_crowded) = (CAPACITY, 0, false);
    }

    pub fn fill(&mut self, left: u64, refusals: u32) {
        (self.capacity, self.refusals_left) = (self.used() + left, refusals);
    }

    /// What happens to the operation that was counted last.
    pub fn due(&mut self, takes_room: bool, length: usize) -> Option<Fault> {
        let fault = self.scheduled(takes_room).or_else(|| self.refused(takes_room, length));
        self.is_faulted |= fault.is_some();
        fault
    }

    fn scheduled(&mut self, takes_room: bool) -> Option<Fault> {
        let (at, fault) = self
            .faults
            .range(..=self.operations)
            .map(|(at, fault)| (*at, *fault))
            .find(|(_, fault)| takes_room || *fault != Fault::Full)?;
        self.faults.remove(&at);
        Some(fault)
    }

    fn refused(&mut self, takes_room: bool, length: usize) -> Option<Fault> {
        // Only now: what the last refused write could leave depended on the old bound.
        if self.refusals_left == 0 {
            self.capacity = CAPACITY;
        }
        if !takes_room || self.used() + (length as u64).max(1) <= self.capacity {
            return None;
        }
        self.refusals_left -= 1;
        Some(Fault::Full)
    }

    /// One in `count`.
    pub fn chance(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    pub fn crash(&mut self, crash: Crash) {
        self.crashed = Some(crash);
    }

    /// What the next boot finds.
    pub fn recover(&mut self) {
        self.locks.clear();
        self.is_faulted = false;
        if self.crashed.take() == Some(Crash::PowerCut) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        for turn in std::mem::take(&mut self.turns) {
            if self.chance(2) {
                apply(&mut self.names_kept, turn);
            }
        }
        let is_reachable = |path: &Path| path.ancestors().skip(1).all(|folder| self.names_kept.get(folder) == Some(&Entry::Folder));
        self.names = self.names_kept.iter().filter(|(path, _)| is_reachable(path)).map(|(path, entry)| (path.clone(), *entry)).collect();
        self.names_kept = self.names.clone();
        let Self { nodes, random, .. } = self;
        nodes.iter_mut().for_each(|node| node.forget(random));
    }

    pub fn create(&mut self, path: &Path) -> io::Result<usize> {
        self.folder(parent(path))?;
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.nodes.push(Node::default());
        let node = self.nodes.len() - 1;
        self.turn(Turn::Link(path.to_path_buf(), Entry::File(node)));
        Ok(node)
    }

    pub fn node(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Entry::File(node)) => Ok(*node),
            Some(Entry::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub fn bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.nodes[self.node(path)?].seen.clone())
    }

    /// Where it goes wrong, a first part of it is written, as far as there is room.
    pub fn write(&mut self, node: usize, bytes: &[u8], is_well: bool) {
        let room = self.capacity.saturating_sub(self.used()) as usize;
        let length = match is_well {
            true => bytes.len(),
            false if room < bytes.len() => room,
            false => self.random.random_range(0..=bytes.len()),
        };
        self.nodes[node].write(&bytes[..length]);
    }

    /// Where it goes wrong, what was to be kept is left to chance, now.
    pub fn sync(&mut self, node: usize, is_well: bool) {
        let Self { nodes, random, .. } = self;
        let node = &mut nodes[node];
        match is_well {
            true => std::mem::take(&mut node.unsynced).into_iter().for_each(|range| node.keep(range)),
            false => node.gamble(random),
        }
    }

    pub fn truncate(&mut self, path: &Path, length: usize) -> io::Result<()> {
        let node = self.node(path)?;
        self.sync(node, true);
        let node = &mut self.nodes[node];
        node.seen.resize(length, 0);
        node.kept.resize(length, 0);
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let entry = Entry::File(self.node(from)?);
        if parent(from) != parent(to) {
            return Err(io::Error::other("this disk renames within a folder only"));
        }
        self.turn(Turn::Rename(from.to_path_buf(), to.to_path_buf(), entry));
        Ok(())
    }

    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.node(path)?;
        self.turn(Turn::Unlink(path.to_path_buf()));
        Ok(())
    }

    pub fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        let mut missing: Vec<&Path> = path.ancestors().filter(|folder| !self.names.contains_key(*folder)).collect();
        while let Some(folder) = missing.pop() {
            self.turn(Turn::Link(folder.to_path_buf(), Entry::Folder));
        }
        self.folder(path)
    }

    pub fn mount(&mut self, folder: &Path) {
        self.names.insert(folder.to_path_buf(), Entry::Folder);
        self.names_kept.insert(folder.to_path_buf(), Entry::Folder);
    }

    pub fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.folder(folder)?;
        let inside = self.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    pub fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.folder(folder)?;
        let (synced, left): (Vec<Turn>, Vec<Turn>) = std::mem::take(&mut self.turns).into_iter().partition(|turn| turn.folder() == folder);
        self.turns = left;
        synced.into_iter().for_each(|turn| apply(&mut self.names_kept, turn));
        Ok(())
    }

    pub fn room(&self) -> Room {
        Room { free: self.capacity.saturating_sub(self.used()), total: CAPACITY }
    }

    pub fn lock(&mut self, path: &Path) -> io::Result<()> {
        if !self.names.contains_key(path) {
            self.create(path)?;
        }
        match self.locks.insert(path.to_path_buf()) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub fn unlock(&mut self, path: &Path) {
        self.locks.remove(path);
    }

    pub fn flip(&mut self, path: &Path, bit: u64) {
        let node = self.node(path).expect("a file that is there");
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        let node = &mut self.nodes[node];
        node.seen[byte] ^= mask;
        if let Some(kept) = node.kept.get_mut(byte) {
            *kept ^= mask;
        }
    }

    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let length = |(path, entry): (&PathBuf, &Entry)| match entry {
            Entry::File(node) => Some((path.clone(), self.nodes[*node].seen.len() as u64)),
            Entry::Folder => None,
        };
        self.names.iter().filter_map(length).collect()
    }

    fn folder(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Entry::Folder) => Ok(()),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn turn(&mut self, turn: Turn) {
        apply(&mut self.names, turn.clone());
        self.turns.push(turn);
    }

    fn used(&self) -> u64 {
        self.files().iter().map(|(_, length)| length).sum()
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn apply(names: &mut BTreeMap<PathBuf, Entry>, turn: Turn) {
    match turn {
        Turn::Link(path, entry) => drop(names.insert(path, entry)),
        Turn::Unlink(path) => drop(names.remove(&path)),
        Turn::Rename(from, to, entry) => {
            names.remove(&from);
            names.insert(to, entry);
        }
    }
}

impl Node {
    fn write(&mut self, bytes: &[u8]) {
        let from = self.seen.len();
        self.seen.extend_from_slice(bytes);
        self.unsynced.push(from..self.seen.len());
    }

    fn keep(&mut self, range: Range<usize>) {
        self.reach(range.end);
        self.kept[range.clone()].copy_from_slice(&self.seen[range]);
    }

    fn reach(&mut self, length: usize) {
        self.kept.resize(length.max(self.kept.len()), 0);
    }

    /// Each unsynced write is kept, torn, lost, or there in length only.
    fn gamble(&mut self, random: &mut StdRng) {
        for range in std::mem::take(&mut self.unsynced) {
            match random.next_u32() % 4 {
                0 => self.keep(range),
                1 => self.keep(range.start..random.random_range(range.start..=range.end)),
                2 => self.reach(range.end),
                _ => {}
            }
        }
    }

    fn forget(&mut self, random: &mut StdRng) {
        self.gamble(random);
        self.seen = self.kept.clone();
    }
}
