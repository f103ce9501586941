//! The programs around the input: the application that writes it, logrotate, an operator, and
//! programs with files beside it.
//!
//! Each call of [`Programs::act`] is one step of one program. The application can therefore write
//! while a copy in several steps is in progress, as happens with `copytruncate` under load.

use crate::filesystem::{ContentId, FileSystem, Inode, folder_of};
use crate::random::Random;
use crate::story::{Story, excerpt};
use crate::truth::{Fate, Truth};

/// The path of the input.
pub const INPUT: &str = "logs/app.log";
/// The target folder of a symbolic link at the input's path.
const ELSEWHERE: &str = "releases";

/// The habits of the programs in one seed. Each is enabled in some seeds only, so that all
/// combinations occur.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Habits {
    /// Every content begins with the same line.
    pub headers: bool,
    /// Lines may exceed the maximum length of an entry, contain any byte, and lack their newline
    /// for a while.
    pub wild_lines: bool,
    /// The input is rotated by rename.
    pub renames: bool,
    /// The input is rotated by copying and truncating.
    pub copytruncate: bool,
    /// Rotated files are compressed.
    pub compresses: bool,
    /// Rotated files are named by date and not by number.
    pub dateext: bool,
    /// The application keeps a rotated file open for late lines.
    pub late_lines: bool,
    /// Rotated files are deleted, even unread ones.
    pub deletes: bool,
    /// An operator replaces, restores, rolls back, edits and truncates files.
    pub operates: bool,
    /// Other programs have growing files in the folder.
    pub neighbours: bool,
    /// Permissions are removed and restored.
    pub permissions: bool,
    /// The input is a symbolic link.
    pub linked: bool,
}

/// A rotation in several steps.
#[derive(Debug, Clone)]
enum Rotation {
    None,
    /// `copytruncate`: the copy has been written up to its present length.
    Copying {
        from: Inode,
        to: Inode,
    },
    /// The copy is complete. Bytes written before the truncation are lost.
    Copied {
        from: Inode,
        copied: u64,
    },
}

/// The programs and their state.
#[derive(Debug)]
pub struct Programs {
    habits: Habits,
    /// The file that the application appends to.
    current: Inode,
    /// A rotated file that the application still has open.
    late: Option<Inode>,
    rotation: Rotation,
    rotations: u64,
    lines: u64,
    /// Copies that the operator made.
    backups: Vec<String>,
    story: Story,
}

/// Files of other programs that exist before the source begins and look like rotated files.
const EARLIER: [&str; 3] = ["logs/app.log.7", "logs/app.log-20250101", "logs/app.log.9.gz"];

/// Names of files of other programs.
const NEIGHBOURS: [&str; 8] = [
    "logs/app-2.log",
    "logs/app.log.bak",
    "logs/app.log~",
    "logs/app10.log",
    "logs/app.log.old.2",
    "logs/.app.log.swp",
    "logs/application.log",
    "logs/app.log-other",
];

impl Programs {
    /// Creates the programs and the initial input.
    pub fn begin(habits: Habits, files: &mut FileSystem, truth: &mut Truth, random: &mut Random, story: Story) -> Self {
        if habits.linked {
            files.symlink("releases/app.log", INPUT);
        }
        let mut programs = Self {
            habits,
            current: 0,
            late: None,
            rotation: Rotation::None,
            rotations: 0,
            lines: 0,
            backups: Vec::new(),
            story,
        };
        if habits.neighbours {
            for name in NEIGHBOURS.iter().chain(&EARLIER).filter(|_| random.chance(30)) {
                let inode = files.create(name);
                files.append(inode, b"not yours\n");
            }
        }
        programs.open_input(files, truth);
        truth.observe(files, true);
        programs
    }

    /// Opens the input as the application does, and creates it if necessary.
    fn open_input(&mut self, files: &mut FileSystem, truth: &mut Truth) {
        let is_new = files.resolve(INPUT).is_err();
        let inode = files.create(INPUT);
        files.hold(inode);
        self.current = inode;
        if is_new {
            let content = truth.begin(b"");
            self.name(files, inode, content);
            self.story.tell(|| format!("the application creates {INPUT} (inode {inode}): content {content}"));
            if self.habits.headers {
                self.append(files, truth, inode, b"#time level text\n");
            }
        }
    }

    fn name(&self, files: &mut FileSystem, inode: Inode, content: ContentId) {
        if let Some(file) = files.file_mut(inode) {
            file.content = Some(content);
        }
    }

    /// Appends to a file and to its content. A file with fewer bytes than its content has diverged
    /// from it.
    fn append(&self, files: &mut FileSystem, truth: &mut Truth, inode: Inode, bytes: &[u8]) {
        let Some(file) = files.file(inode) else { return };
        let len = file.len();
        let present = file.content.filter(|&content| truth.get(content).is_some_and(|c| c.bytes.len() as u64 == len));
        let content = match (present, file.content) {
            (Some(content), _) => {
                truth.append(content, bytes);
                content
            }
            (None, Some(parent)) => {
                let derived = truth.derive(parent, len, &[file.bytes(), bytes].concat());
                self.story.tell(|| format!("content {derived} parts from content {parent} at byte {len}"));
                derived
            }
            (None, None) => return,
        };
        files.append(inode, bytes);
        self.name(files, inode, content);
        self.story.tell(|| {
            let end = len + bytes.len() as u64;
            format!("the application appends bytes {len}..{end} of content {content}: {}", excerpt(bytes))
        });
    }

    /// Some log text, mostly whole lines.
    fn lines(&mut self, content: ContentId, random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..random.between(1, 4) {
            self.lines += 1;
            bytes.extend_from_slice(format!("{content}.{} ", self.lines).as_bytes());
            let filler = if self.habits.wild_lines && random.chance(20) { random.below(60) } else { random.below(8) };
            for _ in 0..filler {
                let byte = if self.habits.wild_lines { random.below(256) } else { 97 + random.below(26) };
                bytes.push(u8::try_from(byte).unwrap_or(b'x'));
            }
            if self.habits.wild_lines && random.chance(10) {
                bytes.push(b'\r');
            }
            bytes.push(b'\n');
            if self.habits.wild_lines && random.chance(10) {
                bytes.push(b'\n');
            }
        }
        if self.habits.wild_lines && random.chance(20) {
            let _ = bytes.pop();
        }
        bytes
    }

    /// Lets the application write.
    pub fn write(&mut self, files: &mut FileSystem, truth: &mut Truth, random: &mut Random) {
        let content = files.file(self.current).and_then(|file| file.content).unwrap_or(0);
        let bytes = self.lines(content, random);
        self.append(files, truth, self.current, &bytes);
        truth.observe(files, true);
    }

    /// Performs one step of one program.
    pub fn act(&mut self, files: &mut FileSystem, truth: &mut Truth, random: &mut Random) {
        if !matches!(self.rotation, Rotation::None) {
            self.go_on_rotating(files, truth, random);
        } else {
            match random.below(100) {
                0..=24 => self.rotate(files, truth, random),
                25..=39 if self.habits.late_lines => self.write_late(files, truth, random),
                40..=54 if self.habits.operates => self.operate(files, truth, random),
                55..=69 if self.habits.neighbours => self.write_neighbour(files, random),
                70..=77 if self.habits.permissions => self.change_permissions(files, random),
                78..=84 if self.habits.compresses => self.compress(files, random),
                85..=89 if self.habits.deletes => self.delete(files, random),
                _ => {}
            }
        }
        truth.observe(files, true);
    }

    /// Ends the faults: finishes unfinished steps, and restores permissions.
    pub fn settle(&mut self, files: &mut FileSystem, truth: &mut Truth, random: &mut Random) {
        while !matches!(self.rotation, Rotation::None) {
            self.go_on_rotating(files, truth, random);
        }
        files.set_listable("logs", true);
        files.set_listable(ELSEWHERE, true);
        let inodes: Vec<Inode> = files.files().map(|(inode, _)| inode).collect();
        for inode in inodes {
            if let Some(file) = files.file_mut(inode) {
                file.readable = true;
            }
        }
        // An unfinished last line waits for its newline, and the end of a content waits for the
        // next content to begin.
        self.append(files, truth, self.current, b"\nthe last line\n");
        // A file that was rolled back is a beginning of what was sent until it is longer than that.
        while files.file(self.current).is_some_and(|file| {
            let content = file.content.and_then(|content| truth.get(content));
            let parent = content.and_then(|content| truth.get(content.shares?.0));
            parent.is_some_and(|parent| parent.is_operated && file.len() <= parent.sent + 64)
        }) {
            self.append(files, truth, self.current, b"another line at the end\n");
        }
        truth.observe(files, true);
    }

    // logrotate.

    /// The path of the file to rotate: the target of a symbolic link.
    fn target(&self, files: &FileSystem) -> String {
        files.canonical(INPUT).unwrap_or_else(|| INPUT.to_owned())
    }

    fn rotated_name(&self, files: &FileSystem, nth: u64) -> String {
        let target = self.target(files);
        if self.habits.dateext {
            format!("{target}-202611{:02}", self.rotations + nth)
        } else {
            format!("{target}.{nth}")
        }
    }

    /// Renames `.1` to `.2`, and so on; removes the oldest.
    fn shift(&mut self, files: &mut FileSystem) {
        const KEPT: u64 = 4;
        self.rotations += 1;
        if self.habits.dateext {
            return;
        }
        for nth in (1..=KEPT).rev() {
            for suffix in ["", ".gz"] {
                let from = format!("{}{suffix}", self.rotated_name(files, nth));
                if !files.exists(&from) {
                    continue;
                }
                if nth == KEPT {
                    self.story.tell(|| format!("logrotate deletes {from}"));
                    let _ = files.unlink(&from);
                } else {
                    let _ = files.rename(&from, &format!("{}{suffix}", self.rotated_name(files, nth + 1)));
                }
            }
        }
    }

    fn rotate(&mut self, files: &mut FileSystem, truth: &mut Truth, random: &mut Random) {
        let target = self.target(files);
        if files.at(&target).is_none_or(|file| file.is_empty()) {
            return;
        }
        let copy = match (self.habits.renames, self.habits.copytruncate) {
            (false, false) => return,
            (renames, copies) => copies && (!renames || random.chance(50)),
        };
        self.shift(files);
        let rotated = self.rotated_name(files, 1);
        if copy {
            let Ok(from) = files.resolve(&target) else { return };
            let to = files.create(&rotated);
            files.set_len(to, 0);
            let content = files.file(from).and_then(|file| file.content).unwrap_or(0);
            self.name(files, to, content);
            self.story.tell(|| format!("logrotate begins to copy {target} (content {content}) to {rotated}"));
            self.rotation = Rotation::Copying { from, to };
            return;
        }
        self.story.tell(|| format!("logrotate renames {target} to {rotated}"));
        let _ = files.rename(&target, &rotated);
        if self.habits.late_lines {
            if let Some(late) = self.late.replace(self.current) {
                files.close(late);
            }
        } else {
            files.close(self.current);
        }
        self.open_input(files, truth);
    }

    fn go_on_rotating(&mut self, files: &mut FileSystem, truth: &mut Truth, random: &mut Random) {
        let (from, done) = match self.rotation.clone() {
            Rotation::None => return,
            Rotation::Copied { from, copied } => (from, copied),
            Rotation::Copying { from, to } => {
                let (Some(source), Some(copy)) = (files.file(from), files.file(to)) else {
                    self.rotation = Rotation::None;
                    return;
                };
                let (len, done) = (source.len(), copy.len());
                if done >= len || source.content != copy.content {
                    self.rotation = Rotation::Copied { from, copied: done };
                    return;
                }
                let end = len.min(done + random.between(16, 400));
                let piece =
                    source.bytes()[usize::try_from(done).unwrap_or(0)..usize::try_from(end).unwrap_or(0)].to_vec();
                files.append(to, &piece);
                self.story.tell(|| format!("logrotate copies bytes {done}..{end}"));
                return;
            }
        };
        let len = files.file(from).map_or(0, crate::filesystem::File::len);
        self.story.tell(|| format!("logrotate truncates inode {from}; {done} of its {len} bytes are in the copy"));
        files.set_len(from, 0);
        self.rotation = Rotation::None;
        let content = truth.begin(b"");
        self.name(files, from, content);
        self.story.tell(|| format!("what comes next in inode {from} is content {content}"));
        if self.habits.headers {
            self.append(files, truth, from, b"#time level text\n");
        }
    }

    /// The existing rotated files of the input.
    fn rotated(&self, files: &FileSystem) -> Vec<String> {
        let target = self.target(files);
        let listed = files.list(folder_of(&target)).unwrap_or_default();
        listed
            .into_iter()
            .filter(|(path, inode)| *path != target && files.file(*inode).is_some_and(|file| file.content.is_some()))
            .map(|(path, _)| path.to_owned())
            .collect()
    }

    fn compress(&self, files: &mut FileSystem, random: &mut Random) {
        let rotated = self.rotated(files);
        if let Some(path) = random.pick(&rotated)
            && files.compress(path).is_ok()
        {
            self.story.tell(|| format!("logrotate compresses {path}"));
        }
    }

    fn delete(&self, files: &mut FileSystem, random: &mut Random) {
        let rotated = self.rotated(files);
        if let Some(path) = random.pick(&rotated) {
            self.story.tell(|| format!("logrotate deletes {path}"));
            let _ = files.unlink(path);
        }
    }

    // The application, late.

    fn write_late(&mut self, files: &mut FileSystem, truth: &mut Truth, random: &mut Random) {
        let Some(late) = self.late else { return };
        let content = files.file(late).and_then(|file| file.content).unwrap_or(0);
        let bytes = self.lines(content, random);
        self.append(files, truth, late, &bytes);
        if random.chance(30) {
            self.story.tell(|| format!("the application closes inode {late}"));
            files.close(late);
            self.late = None;
        }
    }

    // An operator.

    fn operate(&mut self, files: &mut FileSystem, truth: &mut Truth, random: &mut Random) {
        let target = self.target(files);
        let Some(file) = files.at(&target) else { return };
        let (len, Some(content)) = (file.len(), file.content) else { return };
        truth.operate(content);
        match random.below(6) {
            // As rsync or an editor does: replaces the file by a temporary file with the same
            // bytes.
            0 => {
                self.replace(files, &target, len);
                self.story.tell(|| format!("an operator replaces {target} by a copy of itself"));
            }
            1 if len > 1 => {
                let kept = random.between(1, len - 1);
                self.replace(files, &target, kept);
                // Bytes that the operator removes may have been sent or not.
                truth.note(content, kept..len, Fate::OPTIONAL);
                self.story.tell(|| format!("an operator rolls {target} back to its first {kept} bytes"));
            }
            2 if len > 1 => {
                let kept = len - random.between(1, len.min(8) - 1).min(len - 1);
                let Ok(inode) = files.resolve(&target) else { return };
                files.set_len(inode, kept);
                truth.note(content, kept..len, Fate::OPTIONAL);
                self.story.tell(|| format!("{target} shrinks to its first {kept} bytes"));
            }
            3 => {
                let backup = format!("backup/{}", self.backups.len());
                if files.copy(&target, &backup).is_ok() {
                    self.story.tell(|| format!("an operator copies {target} to {backup}"));
                    self.backups.push(backup);
                }
            }
            4 => {
                let Some(backup) = random.pick(&self.backups).cloned() else { return };
                let (Some(old), Some(new)) = (files.at(&target), files.at(&backup)) else { return };
                let kept = old.bytes().iter().zip(new.bytes()).take_while(|(a, b)| a == b).count() as u64;
                truth.note(content, kept..len, Fate::OPTIONAL);
                self.replace_by(files, &backup, &target);
                self.story.tell(|| format!("an operator restores {target} from {backup}"));
            }
            // As `sed -i` does: replaces the file by an edited copy.
            _ if len > 1 => {
                let at = random.below(len);
                let Some(file) = files.at(&target) else { return };
                let mut bytes = file.bytes().to_vec();
                bytes[usize::try_from(at).unwrap_or(0)] ^= 1;
                let derived = truth.derive(content, at, &bytes);
                truth.note(derived, at..len, Fate::OPTIONAL);
                truth.note(content, at..len, Fate::OPTIONAL);
                self.replace(files, &target, 0);
                let Ok(inode) = files.resolve(&target) else { return };
                files.append(inode, &bytes);
                self.name(files, inode, derived);
                self.story.tell(|| format!("an operator edits byte {at} of {target}: content {derived}"));
            }
            _ => {}
        }
    }

    /// Replaces the file by a temporary file with its first bytes; the application opens the new
    /// file.
    fn replace(&mut self, files: &mut FileSystem, target: &str, kept: u64) {
        let temporary = format!("{target}.AbC12");
        let _ = files.copy(target, &temporary).map(|inode| files.set_len(inode, kept));
        self.move_over(files, &temporary, target);
    }

    fn replace_by(&mut self, files: &mut FileSystem, backup: &str, target: &str) {
        let temporary = format!("{target}.AbC12");
        let _ = files.copy(backup, &temporary);
        self.move_over(files, &temporary, target);
    }

    fn move_over(&mut self, files: &mut FileSystem, temporary: &str, target: &str) {
        let _ = files.rename(temporary, target);
        files.close(self.current);
        if let Ok(inode) = files.resolve(target) {
            files.hold(inode);
            self.current = inode;
        }
    }

    // Others.

    fn write_neighbour(&self, files: &mut FileSystem, random: &mut Random) {
        let Some(name) = random.pick(&NEIGHBOURS) else { return };
        let earlier = random.pick(&EARLIER).filter(|name| files.exists(name) && random.chance(20));
        let name = earlier.unwrap_or(name);
        let inode = files.create(name);
        let like_ours = self.habits.headers && files.file(inode).is_some_and(|file| file.is_empty());
        files.append(inode, if like_ours { b"#time level text\nnot yours\n" } else { b"not yours\n" });
        self.story.tell(|| format!("a neighbour appends to {name}"));
    }

    fn change_permissions(&self, files: &mut FileSystem, random: &mut Random) {
        let folder = folder_of(INPUT);
        if random.chance(50) {
            let listable = files.list(folder).is_err();
            files.set_listable(folder, listable);
            self.story.tell(|| format!("{folder} may {}be listed", if listable { "" } else { "not " }));
            return;
        }
        let inodes: Vec<Inode> = files.files().map(|(inode, _)| inode).collect();
        if let Some(inode) = random.pick(&inodes)
            && let Some(file) = files.file_mut(*inode)
        {
            file.readable = !file.readable;
            let readable = file.readable;
            self.story.tell(|| format!("inode {inode} may {}be read", if readable { "" } else { "not " }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the programs do, each file of a content contains a prefix of it.
    #[test]
    fn every_file_holds_a_prefix_of_its_content() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut files = FileSystem::new(0, false);
            let mut truth = Truth::default();
            let mut flip = || random.chance(50);
            let habits = Habits {
                headers: flip(),
                wild_lines: flip(),
                renames: flip(),
                copytruncate: flip(),
                compresses: flip(),
                dateext: flip(),
                late_lines: flip(),
                deletes: flip(),
                operates: flip(),
                neighbours: flip(),
                permissions: flip(),
                linked: flip(),
            };
            let mut programs = Programs::begin(habits, &mut files, &mut truth, &mut random, Story::untold());
            for _ in 0..200 {
                if random.chance(60) {
                    programs.write(&mut files, &mut truth, &mut random);
                } else {
                    programs.act(&mut files, &mut truth, &mut random);
                }
                for (inode, file) in files.files() {
                    let Some(content) = file.content.and_then(|content| truth.get(content)) else { continue };
                    assert!(content.bytes.starts_with(file.plain()), "seed {seed}, inode {inode}");
                }
            }
            programs.settle(&mut files, &mut truth, &mut random);
        }
    }
}
